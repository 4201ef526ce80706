"""The CPU kernels of this machine by themselves: every operator at every size that they are cut at, whatever the model.

A bundle's cases see the sizes of one model on one instruction set. What is built wrong, or built for a processor that
nobody here has, shows where the library is asked for its own boundaries.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from mythos_export.kernels.edges import OPERATORS, EdgeCall, edge_calls
from mythos_export.kernels.library import describe
from mythos_export.kernels.op import OPERATORS as RECORDS
from mythos_export.progress import Progress
from mythos_export.verify.compare import Problem
from mythos_export.verify.results import Failure, StageResult
from mythos_export.verify.stages.stage import failing
from mythos_model.formats import FORMATS, PLAIN
from mythos_runtime.errors import BackendFailed, BackendMissing
from mythos_runtime.op_library import find_op_library, why_no_op_library
from mythos_runtime.ort_opening import error_types

NAME, RUNNER = "kernels", "ONNX Runtime, one operator at a time"
ARTIFACT = "the operator library"
TOLERANCE = 2e-6  # relative; sums of float32 in another order than the reference's float64
ROUNDED_HIDDEN = 2e-2  # where experts' hidden values are rounded: one near the middle of two integers may go either way
EXACT = ("rounded_line",)  # nothing is summed: a value that is right is right to the bit
_ISA = "MYTHOS_OPS_ISA"
_TYPES = {
    **dict.fromkeys(("expert_index", "layer", "positions", "past_lengths", "ids"), TensorProto.INT64),
    **dict.fromkeys(("halted", "halted_next", "running"), TensorProto.BOOL),
    **dict.fromkeys(("depth", "depth_next"), TensorProto.INT32),
}


@dataclass(frozen=True)
class Checked:
    """How many calls were made, by instruction set; and the first that was wrong, with the call in words."""

    calls: dict[str, int]
    problem: Problem | None

    def words(self) -> str:
        return ", ".join(f"{count} calls on {isa}" for isa, count in self.calls.items())


def check_kernels(library: Path, progress: Callable[[float], None] = lambda part: None) -> Checked:
    """Hold the operators of a library to their references, on every instruction set that this machine has.

    Raises:
        BackendMissing: the library cannot be loaded, or does not say what it is made of.
    """
    said = describe(library)
    isas = list(said["isas"])
    pairs = [(op, form) for op in OPERATORS for form in FORMATS if FORMATS[form].native]
    calls: dict[str, int] = {}
    for number, isa in enumerate(isas):
        for step, (op, form) in enumerate(pairs):
            progress((number + step / len(pairs)) / len(isas))
            for count, call in enumerate(edge_calls(op, form, said)):
                calls[isa] = calls.get(isa, 0) + 1
                problem = _wrong(library, isa, call)
                if problem is not None:
                    return Checked(calls, Problem(f"mythos::{op}", None, f"{isa}, {form}, call {count + 1}: {problem}"))
    return Checked(calls, None)


def kernels_stage(progress: Progress) -> StageResult:
    """The check as a stage of a verification; of a machine without a library, one that was not run."""
    try:
        library = find_op_library()
        if library is None:
            return StageResult(NAME, RUNNER, ARTIFACT, reason=why_no_op_library())
        step = f"{NAME} ({RUNNER})"
        progress(step)
        checked = check_kernels(library, lambda part: progress(step, part))
    except BackendMissing as error:
        return StageResult(NAME, RUNNER, ARTIFACT, reason=str(error))
    if checked.problem is None:
        return StageResult(NAME, f"{RUNNER}: {checked.words()}", ARTIFACT)
    failure = Failure(NAME, "the operators by themselves", checked.problem, checked.problem.tensor)
    return StageResult(NAME, RUNNER, ARTIFACT, failure=failure)


def _wrong(library: Path, isa: str, call: EdgeCall) -> str | None:
    """What is wrong with a call, in words."""
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in call.inputs.items())
    try:
        found = _run(library, isa, call)
    except BackendFailed as error:
        return f"{error} ({shapes})"
    wide = {
        name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in call.inputs.items()
    }
    expected = RECORDS[call.op].reference(**wide, **call.attributes)
    several = expected if isinstance(expected, (tuple, list)) else (expected,)
    for name, array, true in zip(RECORDS[call.op].outputs, found, several, strict=True):
        off = _distance(np.asarray(array), np.asarray(true))
        hidden = call.op == "moe" and FORMATS[call.attributes.get("format", PLAIN)].activations
        allowed = 0.0 if call.op in EXACT else ROUNDED_HIDDEN if hidden else TOLERANCE
        if not off <= allowed:
            return f"{name} is {off:.1e} off, allowed {allowed:.0e} ({shapes})"
    return None


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return np.inf
    if found.dtype.kind != "f":
        return 0.0 if np.array_equal(found, expected) else np.inf
    size = max(float(np.linalg.norm(expected)), 0.1 * found.size**0.5)
    return float(np.linalg.norm(found.astype(np.float64) - expected)) / size if found.size else 0.0


def _run(library: Path, isa: str, call: EdgeCall) -> list[Any]:
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = 1
    with _instructions(isa), failing(f"ONNX Runtime, {isa}", *error_types()):
        settings.register_custom_ops_library(str(library))
        made = ort.InferenceSession(_model(call).SerializeToString(), settings, providers=["CPUExecutionProvider"])
        return list(made.run(None, call.inputs))


@contextlib.contextmanager
def _instructions(isa: str) -> Iterator[None]:
    """Sessions made inside use this instruction set."""
    before = os.environ.get(_ISA)
    os.environ[_ISA] = isa
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ISA]
        else:
            os.environ[_ISA] = before


def _model(call: EdgeCall) -> onnx.ModelProto:
    """A graph of the operator alone."""
    record = RECORDS[call.op]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in call.inputs.items()
    ]
    named = {name: f"{name}_result" for name in record.outputs}
    outputs = [
        helper.make_tensor_value_info(value, _TYPES.get(name, TensorProto.FLOAT), None) for name, value in named.items()
    ]
    given = [name if name in call.inputs else "" for name in record.inputs]
    while given and not given[-1]:
        given.pop()
    node = helper.make_node(call.op, given, list(named.values()), domain="mythos", **call.attributes)
    graph = helper.make_graph([node], call.op, inputs, outputs)
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("mythos", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10)
