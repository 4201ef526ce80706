"""weights.safetensors: a model's weights, written as they are made, and the model on top of them where they are.

    file = write_weights(structure, sources, folder / WEIGHTS)    # one tensor in memory at a time, of experts one
    model = file.model                                            # its tensors are the file's bytes, mapped

Everything that comes later sees the same bytes: torch.export and torch.onnx hand the mapped tensors on, a transposed
matrix being a view, and whatever a graph or a program holds is found in the file by its address (`Mapped.place`).

A linear layer's matrix is stored transposed, [in, out], as ONNX's MatMul takes it; the model has a view of it.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mythos_export.errors import PackageError
from mythos_export.tensor_file import Place, header, raw_bytes
from mythos_model.checkpoint.files import Mapped
from mythos_model.looped import LoopedModel
from mythos_model.quantized import Quantized, held_names
from mythos_model.weights import Sources
from mythos_runtime.files import FileEntry
from mythos_runtime.linked import forget

INLINE_BYTES = 1024  # smaller tensors stay in the graph: constants that shape inference wants to see

Stored = tuple[torch.dtype, tuple[int, ...]]
"""A tensor's dtype and shape."""


class Weighing(Protocol):
    """What is made of one tensor while it passes by."""

    def __init__(self, dtype: torch.dtype, shape: tuple[int, ...]) -> None: ...

    def add(self, piece: Tensor) -> None:
        """The tensor, or the next slice of its first axis; called one after the other, from any thread."""
        ...

    def done(self) -> Any: ...


@dataclass(frozen=True)
class WeightsFile:
    """The file, and the model whose weights are in it.

    Attributes:
        model: in evaluation mode; its large tensors are mapped from the file, none of them is in memory.
        entry: the hash and size of the file, known from writing it.
        places: of every tensor.
        prints: what a `Weighing` made of each tensor as it passed by; empty without one.
        linked: tensors of the model that are in files of the user's instead, mapped from there.
    """

    path: Path
    model: LoopedModel
    entry: FileEntry
    places: Mapping[str, Place]
    prints: Mapping[str, Any]
    linked: Mapping[str, Tensor]
    _mapped: Mapped

    def linked_name(self, tensor: Tensor | np.ndarray) -> str | None:
        """Which of the linked tensors an array is, where it is; None where it is none of them."""
        start, size, in_a_row = _extent(tensor)
        return self._names.get((start, size)) if in_a_row else None

    @cached_property
    def _names(self) -> dict[Place, str]:
        return {_extent(tensor)[:2]: name for name, tensor in self.linked.items()}

    def place(self, tensor: Tensor | np.ndarray) -> Place | None:
        """Where in the file an array's elements are, one after the other; None where they are somewhere else."""
        start, size, in_a_row = _extent(tensor)
        start -= self._base
        return (start, start + size) if in_a_row and start >= 0 and start + size <= len(self._mapped) else None

    def forget(self) -> None:
        """Take the files' pages out of this process's memory; they come back as they are looked at."""
        self._mapped.view(0, len(self._mapped)).release()
        for tensor in self.linked.values():
            forget(tensor.data_ptr())

    def close(self) -> None:
        """Take the weights out of the model, so that the file is let go of whoever else holds its tensors.

        The rules by which onnxscript rewrites graphs keep the last one that each of them saw, as long as the process
        lives; and with it the mapping, and the disk's space after the bundle was replaced.
        """
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            tensor.data = tensor.data.new_empty(0)

    @property
    def _base(self) -> int:
        return int(np.frombuffer(self._mapped.memory, np.uint8).__array_interface__["data"][0])


def _extent(tensor: Tensor | np.ndarray) -> tuple[int, int, bool]:
    """An array's address, its bytes, and whether they are one after the other."""
    if isinstance(tensor, Tensor):
        return tensor.data_ptr(), tensor.nbytes, tensor.is_contiguous()
    return tensor.__array_interface__["data"][0], tensor.nbytes, tensor.flags.c_contiguous


def store_model(model: LoopedModel, path: Path) -> WeightsFile:
    """Write a model that is in memory, and take its weights out of it. Raises OSError."""
    return write_weights(model, Sources.plain(model.state_dict()), path)


def write_weights(
    structure: LoopedModel,
    sources: Sources,
    path: Path,
    weigh: type[Weighing] | None = None,
    linked: Mapping[str, Tensor] | None = None,
) -> WeightsFile:
    """Write the weights of a model, and put it on top of them.

    Args:
        structure: the model, of whose tensors shapes and dtypes are enough (`LoopedModel.structure`).
        sources: its tensors by name, or those that its rounded ones are made of.
        weigh: is shown every tensor as it passes by.
        linked: tensors that are not written, as they are in files of the user's.

    Raises:
        ModelError: a weight cannot be rounded.
        OSError: the disk is full, and the like.
    """
    plan = _Plan.of(structure, sources, linked or {})
    sha = hashlib.sha256(plan.head)
    with path.open("wb") as stream, ThreadPoolExecutor(1) as hashing:
        stream.write(plan.head)

        def put(data: memoryview) -> None:
            hashed = hashing.submit(sha.update, data)
            stream.write(data)
            hashed.result()

        small, prints = plan.run(sources, weigh, put)
        size = stream.tell()
        stream.flush()
        os.fsync(stream.fileno())  # where a file system finds out only now that it is full
    return plan.put_on(path, FileEntry(sha.hexdigest(), size), small, prints)


def open_weights(
    structure: LoopedModel,
    sources: Sources,
    path: Path,
    entry: FileEntry,
    weigh: type[Weighing] | None = None,
    linked: Mapping[str, Tensor] | None = None,
) -> WeightsFile:
    """The same on a file that was written before, of the same model. Its content is not looked at: what is weighed are
    the sources, for the artifacts to be held to.

    Raises:
        PackageError: the file is laid out in another way.
    """
    plan = _Plan.of(structure, sources, linked or {})
    with path.open("rb") as stream:
        if stream.read(len(plan.head)) != plan.head:
            raise PackageError(f"{path} is not laid out as this version does it; export the model again")
    return plan.put_on(path, entry, *plan.run(sources, weigh, None))


def reserved(structure: LoopedModel, path: Path) -> LoopedModel:
    """The model on memory that stands for weights which are not there: a sparse file, mapped. Each tensor's first
    elements are NaN, of another payload for each, so that no two are taken for the same, and that what is computed from
    one shows it.

    Raises:
        OSError: the file system has no sparse files of that size.
    """
    wanted = structure.state_dict()
    starts, end = {}, 0
    for name, tensor in wanted.items():
        starts[name], end = end, end + -(-max(tensor.nbytes, 8) // 64) * 64
    with path.open("wb") as stream:
        stream.truncate(end)
    mapped = Mapped(path)
    state = {}
    for number, (name, tensor) in enumerate(wanted.items()):
        place = (starts[name], starts[name] + tensor.nbytes)
        state[name] = _lying(mapped, place, tensor.dtype, tuple(tensor.shape), False)
        if tensor.numel():
            bits = state[name].view(-1)[:2].view({2: torch.int16, 4: torch.int32}[tensor.dtype.itemsize])
            nan = {2: 0x7E00, 4: 0x7FC00000}[tensor.dtype.itemsize]
            bits.copy_(torch.tensor([nan | number & 0x1FF, nan | number >> 9][: len(bits)]))
    structure.load_state_dict(state, assign=True)
    return structure.requires_grad_(False).eval()


@dataclass(frozen=True)
class _Plan:
    """What is where.

    Attributes:
        wanted: of every tensor of the model.
        groups: what is made of each source, in the order of the file.
        head: what the file begins with.
    """

    structure: LoopedModel
    wanted: Mapping[str, Stored]
    groups: Mapping[str, tuple[str, ...]]
    transposed: frozenset[str]
    head: bytes
    places: Mapping[str, Place]
    linked: Mapping[str, Tensor]

    @classmethod
    def of(cls, structure: LoopedModel, sources: Sources, linked: Mapping[str, Tensor]) -> _Plan:
        wanted = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in structure.state_dict().items()}
        layers = (  # of one row or column, whichever way it is stored, the same
            name
            for name, module in structure.named_modules()
            if type(module) is nn.Linear and 1 not in module.weight.shape
        )
        transposed = frozenset(f"{name}.weight" for name in layers) - linked.keys()
        groups = _groups(sources, wanted)
        stored = {
            name: (dtype, shape[::-1] if name in transposed else shape)
            for name, (dtype, shape) in ((name, wanted[name]) for names in groups.values() for name in names)
            if name not in linked and math.prod(shape) * dtype.itemsize > INLINE_BYTES
        }
        return cls(structure, wanted, groups, transposed, *header(stored), linked)

    def run(
        self, sources: Sources, weigh: type[Weighing] | None, put: Callable[[memoryview], None] | None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Make every tensor, one after the other, for `put` and to be weighed. Returns those that no file holds, and
        what came of the weighing."""
        weighings = {} if weigh is None else {name: weigh(*each) for name, each in self.wanted.items()}
        small: dict[str, list[Tensor]] = {}
        with ThreadPoolExecutor(1) as weighing:
            for source, names in self.groups.items():
                if put is None and weigh is None and all(self._kept(name) for name in names):
                    continue
                dtype = self.wanted[names[0]][0]
                for name, piece in _made(self.structure, source, names, sources.pieces(source), dtype):
                    weighed = weighing.submit(weighings[name].add, piece) if weighings else None
                    if not self._kept(name):
                        small.setdefault(name, []).append(piece.clone())
                    elif put is not None and name in self.places:
                        put(raw_bytes(piece.T if name in self.transposed else piece))
                    if weighed is not None:
                        weighed.result()
        stacked = {name for source, names in self.groups.items() if sources.stacked(source) for name in names}
        whole = {name: torch.stack(pieces) if name in stacked else pieces[0] for name, pieces in small.items()}
        return whole, {name: each.done() for name, each in weighings.items()}

    def _kept(self, name: str) -> bool:
        """Whether a file holds it."""
        return name in self.places or name in self.linked

    def put_on(
        self, path: Path, entry: FileEntry, small: Mapping[str, Tensor], prints: Mapping[str, Any]
    ) -> WeightsFile:
        """The model on top of the file."""
        mapped = Mapped(path)
        lying = {
            name: _lying(mapped, place, *self.wanted[name], name in self.transposed)
            for name, place in self.places.items()
        }
        self.structure.load_state_dict({**lying, **small, **self.linked}, assign=True)
        model = self.structure.requires_grad_(False).eval()
        return WeightsFile(path, model, entry, self.places, prints, self.linked, mapped)


def _groups(sources: Sources, wanted: Mapping[str, Stored]) -> dict[str, tuple[str, ...]]:
    """In the order of the file, what is made of each source: the tensor itself, or a rounded one and its scales.

    Larger elements first, so that each is at a multiple of its element's size: the bytes of a rounded tensor, whose
    scales follow, are a multiple of them anyway.
    """
    groups = {name: (name,) if name in wanted else held_names(name) for name in sources}
    return dict(sorted(groups.items(), key=lambda item: (-wanted[item[1][0]][0].itemsize, item[0])))


def _made(
    structure: LoopedModel, source: str, names: tuple[str, ...], pieces: Iterator[Tensor], dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """The pieces of a group's tensors in their order in the file."""
    if len(names) == 1:
        yield from ((source, piece.to(dtype)) for piece in pieces)
        return
    owner, _, own = source.rpartition(".")
    module = structure.get_submodule(owner)
    assert isinstance(module, Quantized)
    scales = []
    for piece in pieces:
        weight, scale = module.rounded(own, piece).values()
        scales.append(scale)
        yield names[0], weight
    yield from ((names[1], scale) for scale in scales)


def _lying(mapped: Mapped, place: Place, dtype: torch.dtype, shape: tuple[int, ...], transposed: bool) -> Tensor:
    """A tensor on the file's bytes: no view of another one, since torch.export takes none."""
    start, end = place
    if start == end:
        return torch.empty(shape, dtype=dtype)
    count = (end - start) // dtype.itemsize
    flat = torch.frombuffer(mapped.memory, dtype=dtype, count=count, offset=start)
    if not transposed:
        return flat.view(shape)
    rows, inputs = shape
    return torch.empty(0, dtype=dtype).set_(flat.untyped_storage(), 0, (rows, inputs), (1, rows))
