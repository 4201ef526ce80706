"""Every implementation of an operator behind one call: case in, result out."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
import torch
from cpu_ops import LIBRARY, describe, isa, node_model, session
from operator_cases import PACKED, Array, OperatorCase, results

from mythos_export.kernels import fallback
from mythos_export.kernels.op import OPERATORS
from mythos_model import cache_lines, ops, paged_ops
from mythos_model.formats import PLAIN

# What is where nothing may be read, for implementations that mask by adding: they promise the result for any finite
# value there, not for NaN.
FINITE = 3.0


@dataclass(frozen=True)
class Implementation:
    """One way to compute the operators.

    Attributes:
        run: case -> result or results, in the case's dtype.
        tolerance: by dtype, several times what was measured.
        finite: names of inputs whose unread entries must be finite (`FINITE` instead of NaN).
        missing: why it cannot run here, or None.
        examples: how many cases are drawn. An interpreter is slow.
        lacked: as `Operator.lacks` has it, where operators may lack this one.
    """

    name: str
    run: Callable[[OperatorCase], Any]
    tolerance: dict[str, float]
    finite: frozenset[str] = frozenset()
    missing: str | None = None
    examples: int = 40
    lacked: fallback.Implementation | None = None

    def __call__(self, case: OperatorCase) -> tuple[Array, ...]:
        inputs = {k: np.nan_to_num(v, nan=FINITE) if k in self.finite else v for k, v in case.inputs.items()}
        return results(self.run(OperatorCase(case.op, inputs, case.attributes)))

    @property
    def slow(self) -> bool:
        """An interpreter, or what another one computes as well."""
        return self.examples < 40 or self.name.endswith("threads")

    def serves(self, op: str, form: str) -> bool:
        packed = form == PACKED
        return self.lacked not in OPERATORS[op].lacks(PLAIN if packed else form, packed)


def _reference(case: OperatorCase) -> Any:
    inputs = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in case.inputs.items()}
    return OPERATORS[case.op].reference(**inputs, **case.attributes)


def run_torch(function: Callable[[str], Callable[..., Any]], case: OperatorCase) -> Any:
    """A case on torch tensors: `function` gives what an operator is computed with."""
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(value)).reshape(value.shape) for name, value in case.inputs.items()
    }
    return function(case.op)(**tensors, **case.attributes)


def plain_torch(op: str) -> Callable[..., Any]:
    """The operator in plain PyTorch."""
    function = next(getattr(module, op) for module in (ops, paged_ops, cache_lines) if hasattr(module, op))
    return functools.partial(
        function, **dict.fromkeys(OPERATORS[op].scales if op in OPERATORS else ())
    )  # None, where the case has none


@functools.cache
def _body_session(op: str, dtype: type, body: bytes, packed: bool, attributes: Any) -> ort.InferenceSession:
    function = onnx.FunctionProto.FromString(body)
    return session(node_model(op, dtype, function, packed=packed, **dict(attributes)), native=False)


def _body(form: str, case: OperatorCase) -> Any:
    function = getattr(OPERATORS[case.op], form)(case.call)
    body, attributes = function.SerializeToString(), tuple(case.attributes.items())
    made = _body_session(case.op, case.dtype, body, case.call.packed, attributes)
    return made.run(None, case.inputs)


@functools.cache
def _native_session(
    op: str, dtype: type, packed: bool, instructions: str, threads: int, attributes: Any
) -> ort.InferenceSession:
    with isa(instructions):
        return session(node_model(op, dtype, packed=packed, **dict(attributes)), threads)


def _native(instructions: str, threads: int, case: OperatorCase) -> Any:
    attributes = tuple(case.attributes.items())
    made = _native_session(case.op, case.dtype, case.call.packed, instructions, threads, attributes)
    return made.run(None, case.inputs)


@functools.cache
def instruction_sets() -> list[str]:
    """The instruction sets that this processor and this build have; the plain one always."""
    return list(describe()["isas"])


def _native_implementations() -> list[Implementation]:
    tolerance = {"float32": 2e-6, "float16": 6e-4}  # sums in another order; one rounding of the result to float16
    if not LIBRARY.exists():
        return [Implementation("native", _reference, tolerance, missing=f"{LIBRARY.name} is not built: make native")]
    found = instruction_sets()
    every = [Implementation(f"native {name}", functools.partial(_native, name, 1), tolerance) for name in found]
    every.append(Implementation("native, 2 threads", functools.partial(_native, found[-1], 2), tolerance))
    return [dataclasses.replace(each, lacked=fallback.NATIVE) for each in every]


def _triton_implementations() -> list[Implementation]:
    """The Triton kernels in Triton's interpreter, which conftest.py chooses before anything imports Triton."""
    tolerance = {"float32": 1e-5, "float16": 5e-3}
    if importlib.util.find_spec("triton") is None:
        return [Implementation("Triton", _reference, tolerance, missing="the package triton is not installed")]
    from mythos_export.kernels.act import triton as act_triton
    from mythos_export.kernels.gqa import triton as gqa_triton
    from mythos_export.kernels.linear import triton as linear_triton
    from mythos_export.kernels.mla import triton as mla_triton
    from mythos_export.kernels.moe import rounded
    from mythos_export.kernels.paged_gqa import triton as paged_gqa_triton
    from mythos_export.kernels.paged_mla import triton as paged_mla_triton
    from mythos_export.kernels.rounded_line import triton as rounded_line_triton

    functions: dict[str, Callable[..., Any]] = {
        "act_halting": act_triton.act_halting,
        "linear": linear_triton.linear,
        "moe": rounded.moe_of_format,
        "mla_attention": mla_triton.mla_attention,
        "gqa_attention": gqa_triton.gqa_attention,
        "paged_gqa_attention": paged_gqa_triton.paged_gqa_attention,
        "paged_mla_attention": paged_mla_triton.paged_mla_attention,
        "rounded_line": rounded_line_triton.rounded_line,
    }
    run = functools.partial(run_torch, functions.__getitem__)
    return [Implementation("Triton, interpreted", run, tolerance, _CHUNK, examples=12, lacked=fallback.TRITON)]


_CHUNK = frozenset({"chunk"})
_SUMS = {"float32": 3e-6, "float16": 5e-3}  # products of float16 rounded one by one

IMPLEMENTATIONS = [
    Implementation("reference in float32", _reference, {"float32": 3e-6, "float16": 3e-6}),
    Implementation("plain PyTorch", functools.partial(run_torch, plain_torch), _SUMS, _CHUNK),
    Implementation("portable body", functools.partial(_body, "portable"), _SUMS, _CHUNK),
    Implementation("TensorRT body", functools.partial(_body, "tensorrt"), _SUMS, _CHUNK, lacked=fallback.DECOMPOSED),
    *_native_implementations(),
    *_triton_implementations(),
]
