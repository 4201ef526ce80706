"""`.pt` files: what torch.save writes, as a zip archive or in its older form, with tensors left where they are."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import IO, Any

from mythos_model.checkpoint.files import Mapped
from mythos_model.checkpoint.pickled import CodeRefused, PickledTensor, StorageRef
from mythos_model.checkpoint.pickles import PickleProblem, unpickle
from mythos_model.checkpoint.stored import Storage, Stored
from mythos_model.errors import CheckpointError, shown, some

_MAGIC = 0x1950A86A20F9469CFC6C  # begins the older form
_LARGEST_PICKLE = 256 << 20
_MARKS = {  # members that tell what else a zip archive is
    "code/": "a TorchScript program, not a checkpoint; save its state dict: torch.save(model.state_dict(), ...)",
    "models/": "an exported program (.pt2), not a checkpoint",
    "archive_format": "an exported program (.pt2), not a checkpoint",
    "[Content_Types].xml": "an office document",
    "word/": "an office document",
}


def looks_like_pt(file: Mapped) -> bool:
    """A zip archive, or a pickle (whose first byte says so since its second protocol)."""
    return _is_zip(file) or (file.memory[0] == 0x80 and file.memory[1] <= 5)


def _is_zip(file: Mapped) -> bool:
    return bytes(file.memory[:4]) == b"PK\3\4" or zipfile.is_zipfile(io.BytesIO(file.memory[-65_557:]))


class PtFile:
    """An opened `.pt` file.

    Attributes:
        file: its bytes.
        value: what was saved, with `PickledTensor` for tensors and `Opaque` for all but plain values.

    Raises:
        CheckpointError: no such format, damaged, or the file asks for code.
    """

    def __init__(self, file: Mapped) -> None:
        self.file = file
        self._storages: dict[str, Storage] = {}
        self.value = self._open_zip() if _is_zip(file) else self._open_old()

    def stored(self, name: str, tensor: PickledTensor) -> Stored:
        """Where a tensor is. Raises CheckpointError, with its `name`, where it cannot be read."""
        problem, ref = tensor.problem, tensor.storage
        if not problem and (not isinstance(ref, StorageRef) or ref.key not in self._storages):
            problem = "has no values in the file"
        if problem or ref is None:
            raise CheckpointError(f"{self.file.path}: the tensor {shown(name)} {problem}")
        storage = self._storages[ref.key]
        if storage.dtype is None:
            storage.dtype = tensor.dtype
        found = Stored(storage, tensor.shape, tensor.dtype, tensor.stride, tensor.offset)
        problem = found.problem()
        if problem:
            raise CheckpointError(f"{self.file.path} is damaged: the tensor {shown(name)} {problem}")
        return found

    def _unpickle(self, stream: IO[bytes]) -> tuple[Any, dict[str, StorageRef]]:
        try:
            return unpickle(stream)
        except CodeRefused as error:
            raise CheckpointError(
                f"{self.file.path} wants to run code to be read ({shown(str(error))}), which is refused; save its "
                "state dict alone with torch.save(model.state_dict(), ...) or as safetensors"
            ) from None
        except PickleProblem as error:
            raise CheckpointError(f"{self.file.path} is not a readable PyTorch checkpoint: {error}") from error

    # -- the zip archive of today -------------------------------------------------------------------------------------

    def _open_zip(self) -> Any:
        entries, end = self._directory()
        pickles = [e.filename for e in entries if e.filename.endswith("/data.pkl") or e.filename == "data.pkl"]
        root = pickles[0].removesuffix("data.pkl") if pickles else ""
        for mark, what in _MARKS.items():
            if any(entry.filename.removeprefix(root).startswith(mark) for entry in entries):
                raise CheckpointError(f"{self.file.path} is {what}")
        if len(pickles) != 1:
            raise CheckpointError(
                f"{self.file.path} is a zip archive that torch.save did not write (it holds "
                f"{some(entry.filename for entry in entries[:4])})"
            )
        members = self._members(entries, end)
        order = members.get(f"{root}byteorder")
        if order and bytes(order.view()) != b"little":
            raise CheckpointError(
                f"{self.file.path} was written on a big-endian machine, which this program cannot read"
            )
        program = members[pickles[0]]
        if len(program) > _LARGEST_PICKLE:
            raise CheckpointError(
                f"{self.file.path}: its pickle has {len(program)} bytes, at most {_LARGEST_PICKLE} are read"
            )
        places = f"{root}data/"
        self._storages = {n.removeprefix(places): member for n, member in members.items() if n.startswith(places)}
        value, refs = self._unpickle(io.BytesIO(program.view()))
        for key, ref in refs.items():
            storage, size = self._storages.get(key), ref.dtype.itemsize if ref.dtype else 1
            if storage is not None and len(storage) != ref.numel * size:
                raise CheckpointError(
                    f"{self.file.path} is damaged: its part {storage.name} is not of the size it should be"
                )
            if storage is not None:
                storage.dtype = ref.dtype
        return value

    def _directory(self) -> tuple[list[zipfile.ZipInfo], int]:
        """The archive's directory, and where it begins."""
        try:
            with zipfile.ZipFile(self.file.stream()) as archive:
                return archive.infolist(), archive.start_dir
        except Exception as error:  # damaged archives raise almost anything
            reason = shown(str(error))
            raise CheckpointError(f"{self.file.path} is a damaged zip archive ({reason}); copy it again") from error

    def _members(self, entries: list[zipfile.ZipInfo], end: int) -> dict[str, Storage]:
        """The archive's members where they are, each uncompressed, none over another."""
        path = self.file.path
        checked = any(entry.CRC for entry in entries)  # torch can be told to save none: all are 0 then
        members: dict[str, Storage] = {}
        for entry in entries:
            name = entry.filename
            if name in members:
                raise CheckpointError(f"{path} is damaged: it holds {shown(name)} twice")
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise CheckpointError(f"{path}: {shown(name)} is compressed or encrypted; torch.save writes neither")
            start = self._data_start(entry)
            if start is None or not start + entry.file_size <= end or entry.file_size != entry.compress_size:
                raise CheckpointError(f"{path} is damaged: its part {shown(name)} is not where its directory says")
            members[name] = Storage(
                self.file, start, start + entry.file_size, None, entry.CRC if checked else None, shown(name)
            )
        last = 0
        for name, member in sorted(members.items(), key=lambda item: item[1].start):
            if member.start < last:
                raise CheckpointError(f"{path} is damaged: its part {shown(name)} overlaps another")
            last = member.end
        return members

    def _data_start(self, entry: zipfile.ZipInfo) -> int | None:
        """Where a member's bytes begin, behind its own header, which has to agree about the name."""
        at = entry.header_offset
        head = bytes(self.file.memory[at : at + 30]) if at >= 0 else b""
        if len(head) < 30 or head[:4] != b"PK\3\4":
            return None
        name_length, extra_length = struct.unpack("<HH", head[26:])
        name = bytes(self.file.memory[at + 30 : at + 30 + name_length])
        same = name == entry.orig_filename.encode("utf-8" if entry.flag_bits & 0x800 else "cp437")
        return at + 30 + name_length + extra_length if same else None

    # -- the older form: pickles one after the other, then the storages -----------------------------------------------

    def _open_old(self) -> Any:
        stream = self.file.stream()
        stream.seek(0)
        if self._unpickle(stream)[0] != _MAGIC:
            raise CheckpointError(
                f"{self.file.path} is a pickle, but not one that torch.save wrote; save its state dict with "
                "torch.save(model.state_dict(), ...) or as safetensors"
            )
        _version, system = self._unpickle(stream), self._unpickle(stream)[0]
        (value, refs), (keys, _) = self._unpickle(stream), self._unpickle(stream)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise CheckpointError(
                f"{self.file.path} was written on a big-endian machine, which this program cannot read"
            )
        at = stream.tell()
        for key in keys if isinstance(keys, list) else []:
            ref = refs.get(key) if type(key) is str else None
            head = bytes(self.file.memory[at : at + 8])
            if ref is None or ref.dtype is None or len(head) < 8 or struct.unpack("<q", head)[0] != ref.numel:
                raise CheckpointError(f"{self.file.path} is damaged: its storages are not those that its pickle names")
            end = at + 8 + ref.numel * ref.dtype.itemsize
            if end > len(self.file) or ref.numel < 0:
                raise CheckpointError(f"{self.file.path} is truncated: it should have at least {end} bytes")
            self._storages[key] = Storage(self.file, at + 8, end, ref.dtype)
            at = end
        return value
