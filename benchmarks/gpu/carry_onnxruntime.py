"""ONNX Runtime's CUDA provider for a machine without a network: with the code of one GPU architecture only.

    python -m benchmarks.gpu.carry_onnxruntime pack WHEEL 90 FOLDER      # two files, 53 and 17 MB of a 256 MB wheel
    python -m benchmarks.gpu.carry_onnxruntime unpack FOLDER TARGET      # on the machine; TARGET goes on PYTHONPATH

WHEEL: onnxruntime-gpu, downloaded for the Python there (`pip download --no-deps --python-version 3.12 ...`).

The machine code of the other architectures is blanked, not removed: sizes and offsets stay as they are, and the driver
never looks at the entries of other GPUs.
"""

from __future__ import annotations

import lzma
import shutil
import struct
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

PROVIDER = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
_OTHER = "onnxruntime/capi/libonnxruntime_providers_tensorrt.so"
_SECTIONS = (b".nv_fatbin", b"__nv_relfatbin")
_FATBIN = 0xBA55ED50
_PTX, _ELF = 1, 2


def prune(library: bytearray, architecture: int) -> tuple[int, int]:
    """Blank the machine code of other architectures in an ELF library; returns the bytes kept and blanked.

    What does not have this architecture keeps all it has. Raises ValueError where the library is not understood.
    """
    kept = blanked = 0
    for start, end in _sections(library):
        at = start
        while at + 16 <= end:
            magic, _version, header, size = struct.unpack_from("<IHHQ", library, at)
            if magic != _FATBIN:
                at += 8
                continue
            entries = list(_entries(library, at + header, at + header + size))
            ours = any(kind == _ELF and code == architecture for kind, code, _, _ in entries)
            for kind, code, where, length in entries:
                if not ours or (kind == _ELF and code == architecture):
                    kept += length
                else:
                    library[where : where + length] = bytes(length)
                    blanked += length
            at = -(-(at + header + size) // 8) * 8
    return kept, blanked


def _sections(library: bytearray) -> Iterator[tuple[int, int]]:
    """Where the fat binaries of an ELF file begin and end."""
    if library[:4] != b"\x7fELF":
        raise ValueError("not an ELF library")
    (table,) = struct.unpack_from("<Q", library, 40)
    width, count, names = struct.unpack_from("<HHH", library, 58)
    headers = [struct.unpack_from("<IIQQQQ", library, table + i * width) for i in range(count)]
    strings = headers[names][4]
    for name, _kind, _flags, _address, offset, size in headers:
        begin = strings + name
        if bytes(library[begin : library.index(0, begin)]) in _SECTIONS:
            yield offset, offset + size


def _entries(library: bytearray, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Kind, architecture, place and bytes of what a fat binary holds."""
    while at + 64 <= end:
        kind, _version, header, size = struct.unpack_from("<HHIQ", library, at)
        (architecture,) = struct.unpack_from("<I", library, at + 28)
        if header == 0:
            raise ValueError(f"an entry at byte {at} has no header: the library has a form that is not known here")
        yield kind, architecture, at + header, size
        at += header + size


def pack(wheel: Path, architecture: int, folder: Path) -> None:
    """Two files: the pruned provider, and the rest of the package."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tree)
        library = bytearray((tree / PROVIDER).read_bytes())
        kept, blanked = prune(library, architecture)
        print(f"sm_{architecture}: kept {kept / 1e6:.1f} MB of machine code, blanked {blanked / 1e6:.1f} MB")
        with lzma.open(folder / "provider.so.xz", "wb", preset=6) as packed:
            packed.write(library)
        for gone in (PROVIDER, _OTHER):
            (tree / gone).unlink(missing_ok=True)
        with tarfile.open(folder / "package.tar.xz", "w:xz") as packed_tree:
            packed_tree.add(tree / "onnxruntime", "onnxruntime")


def unpack(folder: Path, target: Path) -> None:
    """The package, whole again, into a folder for PYTHONPATH."""
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "package.tar.xz") as archive:
        archive.extractall(target, filter="data")
    with lzma.open(folder / "provider.so.xz") as packed, (target / PROVIDER).open("wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 20)


def main() -> int:
    match sys.argv[1:]:
        case ["pack", wheel, architecture, folder]:
            pack(Path(wheel), int(architecture), Path(folder))
        case ["unpack", folder, target]:
            unpack(Path(folder), Path(target))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
