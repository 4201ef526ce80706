"""Generated cases of the operators over block-wise int8 and int4 weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from mythos_model.blockwise import TILE, pad_rows, quantize

Array = NDArray[Any]


def quantized(r: np.random.Generator, form: str, name: str, *shape: int) -> dict[str, Array]:
    """NAME and its scale, of random weights [..., rows, inputs]; SwiGLU's two halves begin a tile each."""
    weight = torch.from_numpy((r.standard_normal(shape) / max(shape[-1], 1) ** 0.5).astype(np.float32))
    if name.endswith("gate_up"):
        weight = torch.cat([pad_rows(half) for half in weight.chunk(2, -2)], -2)
    packed = quantize(weight, form)
    scale = "scale" if name == "weight" else f"{name}_scale"
    return {name: packed.weight.numpy(), scale: packed.scale.numpy()}


@st.composite
def linear(draw: st.DrawFn, form: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """No row to 40 rows of activations, with leading axes; rows and inputs that fill their tiles and blocks or not."""
    leading = draw(st.sampled_from([(0,), (1,), (1, 1), (2,), (2, 3), (40,)]))
    inputs, rows = draw(st.sampled_from([1, 32, 70, 300])), draw(st.sampled_from([1, 16, 37, 160]))
    r = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = (0.3 * r.standard_normal((*leading, inputs))).astype(np.float32)  # as in `moe`
    return {"x": x, **quantized(r, form, "weight", rows, inputs)}, {"rows": rows}


@st.composite
def embedding(draw: st.DrawFn, form: str) -> tuple[dict[str, Array], dict[str, Any]]:
    rows, dim = draw(st.sampled_from([1, 16, 50])), draw(st.sampled_from([1, 32, 70]))
    r = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = r.integers(0, rows, draw(st.sampled_from([(1, 1), (2, 5), (1, 0)])))
    return {"ids": ids, **quantized(r, form, "weight", rows, dim)}, {"dim": dim}


@st.composite
def moe(draw: st.DrawFn, form: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """As `operator_cases.moe_cases`: widths that fill a tile or not, with and without shared experts."""
    E, n = draw(st.integers(1, 5)), draw(st.integers(0, 20))
    K, D = draw(st.integers(1, E)), draw(st.sampled_from([1, 32, 85]))
    F, Fs = draw(st.sampled_from([1, 33, 64])), draw(st.sampled_from([0, 5, TILE]))
    r = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    index = np.stack([r.permutation(E)[:K] for _ in range(n)]) if n else np.zeros((0, K))
    leading = draw(st.sampled_from([(n,), (1, n)]))
    return {
        # Small: with one input there is nothing to average over, and terms of order 5 may cancel to 0.01.
        "x": 0.3 * r.standard_normal((*leading, D)).astype(np.float32),
        "expert_index": index.astype(np.int64).reshape(*leading, K),
        "expert_weight": r.random((*leading, K)).astype(np.float32),
        **quantized(r, form, "routed_gate_up", E, 2 * F, D),
        **quantized(r, form, "routed_down", E, D, F),
        **quantized(r, form, "shared_gate_up", 2 * Fs, D),
        **quantized(r, form, "shared_down", D, Fs),
    }, {}
