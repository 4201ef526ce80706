"""The ONNX graphs in ONNX Runtime: the shipped file for its outputs, its verification twin for the loop inside."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import onnxruntime as ort

from mythos_export.errors import ParityError
from mythos_export.verify.stages.operators import Native, Portable
from mythos_export.verify.stages.stage import LARGE, Bundle, Constants, Stage, failing, load_graph
from mythos_export.verify.trace import Answer, Values, names
from mythos_export.verify.twin import Twin, make_full_twin, make_twin, values_of
from mythos_runtime.errors import BackendFailed, BackendMissing
from mythos_runtime.ort import MOST_FOLDED, OrtSession, error_types, find_op_library
from mythos_runtime.session import OpLibrary, Options

_CPU = ["CPUExecutionProvider"]


class _OnnxRuntime(Stage):
    """What the three stages share."""

    library: ClassVar[OpLibrary] = None

    def __init__(self, bundle: Bundle) -> None:
        self.path = bundle.folder / self.artifact
        self.options = Options(threads=bundle.threads, provider="cpu", op_library=self.library)
        self.fold = fold_of(bundle)
        self.linked = bundle.linked
        self.shipped = OrtSession(self.path, bundle.spec.ports, self.options, fold=self.fold, weights=self.linked)
        self.twin = make_twin(load_graph(self.path), names(bundle.spec))
        self.session = twin_session(self.twin, self.path.parent, self.options, self.fold)

    @classmethod
    def open(cls, bundle: Bundle) -> Self:
        try:
            return cls(bundle)
        except BackendMissing as error:
            if cls.library is not None:
                raise
            # It asks for nothing that an install may lack: the graph holds what ONNX Runtime does not know.
            raise BackendFailed(str(error)) from error

    def outputs(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return self.shipped.run(inputs)

    def answer(self, inputs: Mapping[str, np.ndarray]) -> Answer:
        outputs, watched = self.shipped.run(inputs), run(self.session, inputs, self.linked)
        for name, array in outputs.items():
            if not np.array_equal(array, watched[name], equal_nan=array.dtype.kind == "f"):
                raise ParityError(
                    f"the verification twin's {name} is not bit for bit that of {self.artifact}, so "
                    "it does not show what the shipped graph computes"
                )
        return Answer(outputs, self.twin.trace(watched))

    def weights(self) -> dict[str, Mapping[str, np.ndarray]]:
        return {} if self.library is not None else {self.artifact: Constants(self.path, self.linked)}

    def values(self, inputs: Mapping[str, np.ndarray], iterations: Sequence[int]) -> list[Values]:
        twin = make_full_twin(load_graph(self.path))
        outputs = run(twin_session(twin, self.path.parent, self.options, self.fold), inputs, self.linked)
        return [values_of(twin, outputs, iteration) for iteration in iterations]


class FunctionBodies(Portable, _OnnxRuntime):
    """model.onnx as every ONNX runtime can run it."""

    name: ClassVar[str] = "onnx"
    artifact: ClassVar[str] = "model.onnx"


class CpuKernels(Native, _OnnxRuntime):
    """model.onnx with this project's own CPU kernels."""

    name: ClassVar[str] = "onnx, CPU kernels"
    artifact: ClassVar[str] = "model.onnx"


class TensorRTGraph(_OnnxRuntime):
    """The very ONNX file that TensorRT's parser is given; it is still ONNX, so ONNX Runtime can run it."""

    name: ClassVar[str] = "tensorrt graph"
    runner: ClassVar[str] = "ONNX Runtime"
    artifact: ClassVar[str] = "model.tensorrt.onnx"


def fold_of(bundle: Bundle) -> int | None:
    """Of a large model ONNX Runtime would make transposed copies of all weights, session by session."""
    return 1 << 20 if bundle.weight_bytes > LARGE else None


def twin_session(twin: Twin, folder: Path, options: Options, fold: int | None = None) -> ort.InferenceSession:
    """A session on a graph that is nowhere on disk, with its weights in `folder`, run as the shipped one is. Of a large
    model it is there while it is opened: ONNX Runtime maps the weights of a file, and reads those of a graph in memory.

    Raises:
        BackendFailed: ONNX Runtime refuses the graph.
    """
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    if fold is not None:
        settings.add_session_config_entry(MOST_FOLDED, str(fold))
        settings.enable_cpu_mem_arena = False
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    library = find_op_library(options.op_library)
    with failing("ONNX Runtime, the verification twin", *error_types()):
        if library is not None:
            settings.register_custom_ops_library(str(library))
        if fold is None or not os.access(folder, os.W_OK):
            return ort.InferenceSession(twin.model.SerializeToString(), settings, providers=_CPU)
        with tempfile.NamedTemporaryFile(prefix=".twin-", suffix=".onnx", dir=folder) as file:
            file.write(twin.model.SerializeToString())
            file.flush()
            return ort.InferenceSession(file.name, settings, providers=_CPU)


def run(
    session: ort.InferenceSession, inputs: Mapping[str, np.ndarray], linked: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """All outputs of a session by name; of `linked` it is given what it takes. Raises BackendFailed."""
    weights = {port.name: linked[port.name] for port in session.get_inputs() if port.name in linked}
    names = [output.name for output in session.get_outputs()]
    with failing("ONNX Runtime, the verification twin", *error_types()):
        return dict(zip(names, session.run(names, {**inputs, **weights}), strict=True))
