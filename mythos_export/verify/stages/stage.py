"""What a stage is."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from mythos_export.verify.trace import Answer, Values
from mythos_export.verify.twin import Parts, parts_of
from mythos_model.checkpoint.files import Mapped
from mythos_model.errors import CheckpointError
from mythos_model.formats import FORMATS
from mythos_runtime.errors import BackendFailed
from mythos_runtime.linked import open_links
from mythos_runtime.manifest import MIXED, Manifest
from mythos_runtime.program import WEIGHTS
from mythos_runtime.spec import LoopSpec


@contextlib.contextmanager
def failing(runner: str, *errors: type[Exception]) -> Iterator[None]:
    """What the runner raises in here where it cannot compute something (`errors`) becomes BackendFailed with its first
    line. Anything else is a mistake of this project, and stays a traceback; so call nothing but the runner in here."""
    try:
        yield
    except errors as error:
        lines = str(error).strip().splitlines() or [""]
        raise BackendFailed(f"{runner}: {type(error).__name__}: {lines[0]}") from error


def load_graph(path: Path, weights: bool = False) -> onnx.ModelProto:
    """An ONNX file. Raises BackendFailed where it is none, or its weights cannot be read."""
    with failing("onnx", DecodeError, OSError, ValueError, onnx.checker.ValidationError):
        return onnx.load(path, load_external_data=weights)


class Constants(Mapping[str, np.ndarray]):
    """Every tensor that an ONNX file holds or points to, its Loop's body's too, and those of `linked` that it takes as
    inputs. What is in other files is mapped when it is looked at, and let go of with the array."""

    def __init__(self, path: Path, linked: Mapping[str, np.ndarray]) -> None:
        self._folder, graph = path.parent, load_graph(path).graph
        self._tensors = dict(_tensors_in(graph))
        self._linked, self._taken = linked, [port.name for port in graph.input if port.name in linked]
        self._mapped: dict[str, Mapped] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._tensors and name in self._taken:
            return self._linked[name]
        tensor = self._tensors[name]
        with failing("onnx", OSError, ValueError, CheckpointError, onnx.checker.ValidationError):
            if not uses_external_data(tensor):
                return numpy_helper.to_array(tensor)
            place = ExternalDataInfo(tensor)
            if place.location not in self._mapped:
                self._mapped[place.location] = Mapped(self._folder / place.location)
            start, length = place.offset or 0, place.length or 0
            view = self._mapped[place.location].view(start, start + length)
            return np.frombuffer(view, helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(tuple(tensor.dims))

    def __iter__(self) -> Iterator[str]:
        yield from self._tensors
        yield from self._taken

    def __len__(self) -> int:
        return len(self._tensors) + len(self._taken)


def _tensors_in(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    yield from ((each.name, each) for each in graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield node.output[0], attribute.t
            if attribute.HasField("g"):
                yield from _tensors_in(attribute.g)


def with_weights(bundle: Bundle, files: Iterable[str]) -> list[str]:
    """These files, and those that the ONNX graphs among them keep their weights in."""
    names = dict.fromkeys(files)
    for name in [name for name in names if name.endswith(".onnx")]:
        graph = load_graph(bundle.folder / name).graph
        stored = [entry for tensor in graph.initializer for entry in tensor.external_data if entry.key == "location"]
        names |= dict.fromkeys(entry.value for entry in stored)
    return list(names)


LARGE = 64 << 20  # bytes of weights
WIDE = 1 << 30  # bytes of rounded weights in float32: more are not kept beside them
_WIDENED = {  # float32 bytes of a byte of weights
    name: 32 / (form.bits + (16 / form.block if form.block else 0)) for name, form in FORMATS.items() if form.bits
}
_WIDENED[MIXED] = max(_WIDENED.values())
_SHORT = 3  # loops


@dataclass(frozen=True)
class Bundle:
    """What the stages are opened on: a bundle's folder and what its manifest says, and the CPU threads to use."""

    folder: Path
    manifest: Manifest
    threads: int | None = None

    @property
    def spec(self) -> LoopSpec:
        return self.manifest.spec

    @cached_property
    def linked(self) -> Mapping[str, np.ndarray]:
        """Weights that are in files outside of the bundle. Raises BundleError where these are not there."""
        return open_links(self.folder, self.manifest.links)

    @property
    def weight_bytes(self) -> int:
        """Of the whole model: while shards are made of it, both it and they are there."""
        files, linked = self.manifest.files, 0 if self.manifest.links is None else self.manifest.links.bytes
        if WEIGHTS in files:
            return linked + files[WEIGHTS].bytes
        pieces = ("trunk.safetensors", "experts-")
        return sum(e.bytes for name, e in files.items() if name.startswith(pieces) and name.endswith(".safetensors"))

    @property
    def widened_bytes(self) -> float:
        """What rounded weights take in float32, as the plain forms of the operators make them at every use; 0 of others
        and of those that are small."""
        whole = self.weight_bytes * _WIDENED.get(self.manifest.precision, 0)
        return whole if whole > LARGE else 0

    def is_short(self, inputs: Mapping[str, np.ndarray]) -> bool:
        """Whether a call is within what the plain forms do in reasonable time."""
        loops = int(inputs[self.spec.ports.of("max_loops").name])
        return not self.widened_bytes or loops <= _SHORT


class Stage(ABC):
    """One artifact in one runner. Opened once, asked many times, closed by `close`."""

    name: ClassVar[str]
    runner: ClassVar[str]
    artifact: ClassVar[str]
    """The file of the bundle that is run."""
    optional: ClassVar[bool] = False
    """Whether a whole bundle may lack the artifact, because `--parts` left it out."""
    generates: ClassVar[bool] = True
    """Whether it is fast enough to generate text with."""

    @classmethod
    def applies(cls, bundle: Bundle) -> bool:
        """Whether the bundle holds the artifact."""
        return cls.artifact in bundle.manifest.files

    @classmethod
    def lacking(cls, bundle: Bundle) -> str | None:
        """Why this machine cannot run it, in words; None where it can."""
        return None

    @classmethod
    def takes(cls, bundle: Bundle, inputs: Mapping[str, np.ndarray]) -> bool:
        """Whether a case is within what this stage runs in reasonable time."""
        return True

    @classmethod
    def files(cls, bundle: Bundle) -> list[str]:
        """What of the bundle it reads."""
        if cls.artifact.endswith("/"):
            return [name for name in bundle.manifest.files if name.startswith(cls.artifact)]
        return with_weights(bundle, [cls.artifact])

    @classmethod
    def parts(cls, bundle: Bundle) -> Parts | None:
        """The operators that it runs; None where the artifact has none that could be named."""
        if not cls.artifact.endswith(".onnx"):
            return None
        return parts_of(load_graph(bundle.folder / cls.artifact).graph)

    @classmethod
    @abstractmethod
    def open(cls, bundle: Bundle) -> Stage:
        """Load the artifact.

        Raises:
            BackendMissing: this machine lacks something for it.
            BackendFailed, BundleError, ParityError: it cannot be loaded, or not be looked into.
        """

    @abstractmethod
    def answer(self, inputs: Mapping[str, np.ndarray]) -> Answer:
        """Run one case. Raises BackendFailed or ParityError, whatever the runner raises."""

    def outputs(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Run one call without looking inside."""
        return self.answer(inputs).outputs

    def weights(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        """The tensors that it holds, by file and name; nothing where another stage holds the same ones."""
        return {}

    def values(self, inputs: Mapping[str, np.ndarray], iterations: Sequence[int]) -> list[Values]:
        """Every tensor of some iterations, counted from 0; nothing where the runner does not tell."""
        return [Values() for _ in iterations]

    def close(self) -> None:
        """Let go of whatever it holds."""
        return None
