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
from mythos_export.verify.stages.stage import LARGE, WIDE, Bundle, Constants, Stage, failing, load_graph
from mythos_export.verify.trace import Answer, Values, names
from mythos_export.verify.twin import Twin, make_full_twin, make_twin, values_of
from mythos_runtime.errors import BackendFailed, BackendMissing
from mythos_runtime.op_library import find_op_library
from mythos_runtime.ort import OrtSession
from mythos_runtime.ort_opening import error_types, let_threads_sleep
from mythos_runtime.session import OpLibrary, Options

_CPU = ["CPUExecutionProvider"]
_MOST_FOLDED = "optimization.constant_folding_max_output_size_in_bytes"
_FOLDS_ROUNDED = "session.disable_quant_qdq"
_NOTHING = 1 << 20
# Bytes of one constant. ONNX Runtime holds all steps to it at once: the twin of 1b at int4 takes 2.7 GB and 45 s with
# this limit, 4.0 GB and 23 s with none, and four minutes where nothing is kept.
_MADE_ONCE = 100 << 20


class _OnnxRuntime(Stage):
    """What the three stages share."""

    library: ClassVar[OpLibrary] = None

    def __init__(self, bundle: Bundle) -> None:
        self.path = bundle.folder / self.artifact
        self.options = Options(threads=bundle.threads, provider="cpu", op_library=self.library)
        self.entries = entries_of(bundle)
        self.linked = bundle.linked
        self.shipped = OrtSession(self.path, bundle.spec.ports, self.options, entries=self.entries, weights=self.linked)
        self.twin = make_twin(load_graph(self.path), names(bundle.spec))
        self.session = twin_session(self.twin, self.path.parent, self.options, self.entries)

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
        outputs = run(twin_session(twin, self.path.parent, self.options, self.entries), inputs, self.linked)
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


def entries_of(bundle: Bundle) -> Mapping[str, str]:
    """Of ONNX Runtime's session configuration: what it computes once, while it loads, and keeps in memory.

    Of rounded weights that is what the portable bodies make of them, in every call and iteration otherwise: the same
    operators on the same numbers, but once. Where the memory for it is too much, or where all that could be kept is
    another copy of large weights, transposed, nothing of size is.
    """
    if bundle.widened_bytes:
        return {_FOLDS_ROUNDED: "1", _MOST_FOLDED: str(_MADE_ONCE if bundle.widened_bytes <= WIDE else _NOTHING)}
    return {_MOST_FOLDED: str(_NOTHING)} if bundle.weight_bytes > LARGE else {_FOLDS_ROUNDED: "1"}


def twin_session(twin: Twin, folder: Path, options: Options, entries: Mapping[str, str]) -> ort.InferenceSession:
    """A session on a graph that is nowhere on disk, with its weights in `folder`, run as the shipped one is. Of a large
    model it is there while it is opened: ONNX Runtime maps the weights of a file, and reads those of a graph in memory.

    Raises:
        BackendFailed: ONNX Runtime refuses the graph.
    """
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    for key, value in entries.items():
        settings.add_session_config_entry(key, value)
    settings.enable_cpu_mem_arena = False
    let_threads_sleep(settings)
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    library = find_op_library(options.op_library)
    with failing("ONNX Runtime, the verification twin", *error_types()):
        if library is not None:
            settings.register_custom_ops_library(str(library))
        if _MOST_FOLDED not in entries or not os.access(folder, os.W_OK):
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
