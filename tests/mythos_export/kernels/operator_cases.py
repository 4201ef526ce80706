"""Generated cases of every operator: what all implementations are held to the reference over."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import beside_cases
import numpy as np
import paged_cases
import product_cases
from hypothesis import strategies as st
from numpy.typing import NDArray

from mythos_export.kernels.beside import BESIDE
from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.op import OPERATORS
from mythos_export.verify.stages.kernels import EXACT, ROUNDED_HIDDEN
from mythos_model.formats import FORMATS, PLAIN

Array = NDArray[Any]


@dataclass(frozen=True)
class OperatorCase:
    """One call: inputs by name, attributes by name. NaN is wherever an operator has no business to read."""

    op: str
    inputs: dict[str, Array]
    attributes: dict[str, Any]

    @property
    def dtype(self) -> type:
        """Of what is computed; rounded weights come with float32, whatever their scales are."""
        if self.call.format != PLAIN:
            return np.float32
        return next(value.dtype.type for value in self.inputs.values() if value.dtype.kind == "f")

    @property
    def call(self) -> OperatorCall:
        """As a graph would say it."""
        return OperatorCall(self.op, self.attributes, {name: value.shape for name, value in self.inputs.items()})

    def distance(self, got: tuple[Array, ...]) -> float:
        """The largest relative L2 distance of a result from the reference in float64 of the same inputs.

        Integers and decisions have to be equal, an empty result is right. Results are of order 1. Where few elements
        happen to cancel to less than 0.1 the distance is relative to 0.1, for the rounding errors are those of the
        terms. Where experts' hidden values are rounded, one near the middle of two integers may go either way. Of
        operators that are exact, whatever is not equal is far away.
        """
        if self.op in EXACT:
            return 0.0 if all(map(np.array_equal, got, self._expected)) else np.inf
        rounded = self.op == "moe" and FORMATS[self.call.format].activations
        distances = [_distance(*pair) for pair in zip(got, self._expected, strict=True)]
        return max(distance - ROUNDED_HIDDEN * rounded for distance in distances)

    @functools.cached_property
    def _expected(self) -> tuple[Array, ...]:
        return results(reference_of(self.op)(**wide(self.inputs), **self.attributes))


def reference_of(op: str) -> Callable[..., Any]:
    """What an operator means, slowly, in numpy."""
    return BESIDE[op].reference if op in BESIDE else OPERATORS[op].reference


def _distance(got: Array, expected: Array) -> float:
    assert got.shape == expected.shape and (got.dtype.kind == "f" or got.dtype == expected.dtype)
    nothing = np.isnan(expected) if expected.dtype.kind == "f" else False  # what a cache holds where nobody wrote
    if np.any(nothing):
        if not np.array_equal(nothing, np.isnan(got)):
            return np.inf
        got, expected = got[~nothing], expected[~nothing]
    if got.dtype.kind != "f":
        return 0.0 if np.array_equal(got, expected) else np.inf
    size = max(float(np.linalg.norm(expected)), 0.1 * got.size**0.5)
    return float(np.linalg.norm(got.astype(np.float64) - expected)) / size if got.size else 0.0


def results(returned: Any) -> tuple[Array, ...]:
    """What an operator returns, one or several, as arrays."""
    several = returned if isinstance(returned, (tuple, list)) else (returned,)
    return tuple(np.asarray(result) for result in several)


def wide(inputs: dict[str, Array]) -> dict[str, Array]:
    """The same values, floats in float64."""
    return {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in inputs.items()}


def cache_inputs(seed: int, B: int, T: int, S: int, C: int, dtype: type = np.float32) -> dict[str, Array]:
    """Uneven lengths and random padding; NaN wherever nothing may be read."""
    r = np.random.default_rng(seed)
    lengths = r.integers(0, S, B, endpoint=True)
    layers = int(r.integers(1, 4))
    past, chunk = r.standard_normal((layers, B, S, C)), r.standard_normal((B, T, C))
    real = r.random((B, T)) < r.choice([1.0, 0.7], (B, 1))
    chunk[~real] = np.nan
    for b in range(B):
        past[:, b, lengths[b] :] = np.nan
    return {
        "past": past.astype(dtype),
        "layer": np.array(r.integers(layers)),
        "chunk": chunk.astype(dtype),
        "positions": np.where(real, lengths[:, None] + np.cumsum(real, 1) - 1, -1),
        "past_lengths": lengths,
    }


_tokens_capacity = st.tuples(
    st.integers(1, 3), st.sampled_from([1, 1, 2, 5, 12, 40, 130]), st.sampled_from([0, 1, 7, 64, 300])
)
_seeds = st.integers(0, 2**32 - 1)
_dtypes = st.sampled_from([np.float32, np.float16])


@st.composite
def mla_cases(draw: st.DrawFn) -> OperatorCase:
    """Batches of uneven past and padding, one token to 130, no past to 300."""
    seed, dtype, (B, T, S) = draw(_seeds), draw(_dtypes), draw(_tokens_capacity)
    H = draw(st.integers(1, 5))
    nope, rope, v, R = (draw(st.sampled_from(s)) for s in ([1, 13, 32], [2, 6, 16], [1, 10, 32], [4, 21, 64]))
    r = np.random.default_rng(seed)
    inputs = {
        "q_nope": r.standard_normal((B, T, H, nope)).astype(dtype),
        "q_rope": r.standard_normal((B, T, H, rope)).astype(dtype),
        **cache_inputs(seed, B, T, S, R + rope, dtype),
        "kv_up": (r.standard_normal((H * (nope + v), R)) / R**0.5).astype(dtype),
    }
    return OperatorCase("mla_attention", inputs, {"scale": 0.25, "v_head_dim": v})


@st.composite
def gqa_cases(draw: st.DrawFn) -> OperatorCase:
    """As `mla_cases`, with one to four query heads for each of one to three kv heads."""
    seed, dtype, (B, T, S) = draw(_seeds), draw(_dtypes), draw(_tokens_capacity)
    G, shared, head = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.sampled_from([2, 11, 32]))
    q: Array = np.random.default_rng(seed).standard_normal((B, T, G * shared, head)).astype(dtype)
    inputs = {"q": q, **cache_inputs(seed, B, T, S, 2 * G * head, dtype)}
    return OperatorCase("gqa_attention", inputs, {"scale": 0.25, "kv_heads": G})


@st.composite
def act_cases(draw: st.DrawFn) -> OperatorCase:
    """Positions that halted before, now and not yet; no decision so near that a rounding could turn it."""
    B, T, D = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 40])), draw(st.sampled_from([1, 16, 37, 512]))
    r = np.random.default_rng(draw(_seeds))
    threshold = r.choice([0.5, 0.99, 2.0], draw(st.sampled_from([(), (B, T)])))  # 2: nobody halts
    inputs = {
        "h": r.standard_normal((B, T, D)),
        "out": r.standard_normal((B, T, D)),
        "cumulative": r.random((B, T)) * 1.1,
        "halted": r.random((B, T)) < draw(st.sampled_from([0.0, 0.3, 1.0])),
        "depth": r.integers(0, 9, (B, T), dtype=np.int32),
        "weight": r.standard_normal((1, D)) / D**0.5,
        "bias": r.standard_normal(1) * 10 - 5,  # far into the tail of the sigmoid, too
        "threshold": np.array(threshold),
    }
    inputs = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in inputs.items()}
    p = OPERATORS["act_halting"].reference(**wide(inputs))[0]
    near = np.abs(inputs["cumulative"] + p - threshold) < 1e-4
    inputs["cumulative"] = np.where(near, inputs["cumulative"] + np.float32(1e-3), inputs["cumulative"])
    return OperatorCase("act_halting", inputs, {})


@st.composite
def expert_sum_cases(draw: st.DrawFn) -> OperatorCase:
    """No row to 40, one expert to nine, with and without shared ones."""
    n, K, D = draw(st.integers(0, 40)), draw(st.integers(1, 9)), draw(st.sampled_from([1, 16, 37, 512]))
    r = np.random.default_rng(draw(_seeds))
    inputs = {
        "parts": r.standard_normal((n, K, D)).astype(np.float32),
        "expert_index": np.array([r.permutation(12)[:K] for _ in range(n)], np.int64).reshape(n, K),
        "expert_weight": (r.standard_normal((n, K)) / K**0.5).astype(np.float32),
        "shared": r.standard_normal((n, D) if draw(st.booleans()) else 0).astype(np.float32),
    }
    return OperatorCase("expert_sum", inputs, {})


@st.composite
def rounded_line_cases(draw: st.DrawFn) -> OperatorCase:
    """Parts of very different size, some nothing or next to it; no value near the middle of two integers."""
    lines, parts = draw(st.sampled_from([(1,), (70,), (2, 3)])), draw(st.integers(1, 4))
    width = draw(st.sampled_from([1, 2, 7, 8, 16, 33, 64, 576]))
    r = np.random.default_rng(draw(_seeds))
    scale = 2.0 ** r.integers(-30, 30, (*lines, parts, 1)) * (1 + r.integers(0, 128, (*lines, parts, 1)) / 128)
    integers = r.integers(-126, 127, (*lines, parts, width)) + r.uniform(-0.4, 0.4, (*lines, parts, width))
    np.put_along_axis(integers, r.integers(0, width, (*lines, parts, 1)), r.choice([-127, 127]), -1)
    scale[r.random(scale.shape) < 0.1] = draw(st.sampled_from([0, 2.0**-110]))
    x: Array = (integers * scale).reshape(*lines, parts * width).astype(np.float32)
    return OperatorCase("rounded_line", {"x": x}, {"width": width})


def _case(op: str, drawn: tuple[dict[str, Array], dict[str, Any]]) -> OperatorCase:
    return OperatorCase(op, *drawn)


PACKED = "int8 pages"  # what stands for a format of weights where a cache is packed
CASES = {
    ("rounded_line", PLAIN): rounded_line_cases(),
    ("paged_gqa_attention", PACKED): paged_cases.gqa(packed=True).map(functools.partial(_case, "paged_gqa_attention")),
    ("paged_mla_attention", PACKED): paged_cases.mla(packed=True).map(functools.partial(_case, "paged_mla_attention")),
    ("mla_attention", PLAIN): mla_cases(),
    ("gqa_attention", PLAIN): gqa_cases(),
    ("act_halting", PLAIN): act_cases(),
    ("expert_sum", PLAIN): expert_sum_cases(),
    ("paged_gqa_attention", PLAIN): paged_cases.gqa().map(functools.partial(_case, "paged_gqa_attention")),
    ("paged_mla_attention", PLAIN): paged_cases.mla().map(functools.partial(_case, "paged_mla_attention")),
    **{
        (op, form): cases(form).map(functools.partial(_case, op))
        for op, cases in product_cases.CASES.items()
        for form in FORMATS
        if op != "embedding" or not FORMATS[form].activations  # it multiplies nothing
    },
}
"""By operator and weight format, or PACKED."""

CASES_BESIDE = {op: cases().map(functools.partial(_case, op)) for op, cases in beside_cases.CASES.items()}
"""Of the operators that only programs for PyTorch call."""

FEW = {
    (op, form): cases(few=True, packed=form == PACKED).map(functools.partial(_case, op))
    for op, cases in (("paged_gqa_attention", paged_cases.gqa), ("paged_mla_attention", paged_cases.mla))
    for form in (PLAIN, PACKED)
}
"""Of those that have a program for every row: as many as an interpreter runs in a reasonable time."""
