"""Generated cases of the operators that multiply by weights, over every weight format."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from mythos_model.formats import FORMATS, PLAIN

Array = NDArray[Any]
Drawn = tuple[dict[str, Array], dict[str, Any]]  # inputs and attributes

_seeds = st.integers(0, 2**32 - 1)
_dtypes = st.sampled_from([np.float32, np.float16])


def stored(r: np.random.Generator, form: str, dtype: type, name: str, *shape: int) -> dict[str, Array]:
    """NAME, and its scale where it is rounded, of random weights [..., rows, inputs] of order 1 / sqrt(inputs).

    Of rounded weights every number occurs, rows of padding hold anything, and inputs of padding zero.
    """
    *leading, rows, inputs = shape
    order = max(inputs, 1) ** -0.5
    if form == PLAIN:
        return {name: (r.standard_normal(shape) * order).astype(dtype)}
    lay = FORMATS[form]
    if name.endswith("gate_up"):  # SwiGLU's two halves begin a tile each
        rows = 2 * -(-rows // 2 // lay.tile) * lay.tile
    tiles, padded = -(-rows // lay.tile), lay.padded(inputs)
    most = {8: 127, 4: 8}[lay.bits]
    q = r.integers(-most, lay.zero or most + 1, (*leading, tiles * lay.tile, padded), np.int8)
    if lay.number is not None:
        q[q & 127 == 127] -= 1  # bits, of NaN those of the largest number
    q[..., inputs:] = 0
    weight = lay.lay_out(torch.from_numpy(q)).numpy()
    scale = (r.standard_normal((*leading, tiles, lay.scales(inputs), lay.tile)) * order / most).astype(np.float16)
    return {name: weight, "scale" if name == "weight" else f"{name}_scale": scale}


def activations(r: np.random.Generator, form: str, shape: tuple[int, ...], dtype: type = np.float32) -> Array:
    """What weights in a format are multiplied by, [..., inputs].

    Small: with one input there is nothing to average over, and terms of order 5 may cancel to 0.01. For a format that
    rounds them, none is near the middle of two integers, and each block's largest is 127 times a power of two.
    """
    x = (0.3 * r.standard_normal(shape)).astype(dtype)
    lay = FORMATS[form]
    if lay.activations and x.size:
        unit = 2.0**-8
        x = ((np.rint(x / unit).clip(-126, 126) + r.uniform(-0.4, 0.4, shape)) * unit).astype(dtype)
        x[..., :: lay.block] = 127 * unit
    return x


def attributes(form: str, **others: Any) -> dict[str, Any]:
    """As a node has them: it does not say what is plain."""
    return others if form == PLAIN else {**others, "format": form}


def linear_inputs(
    seed: int, form: str, leading: tuple[int, ...], inputs: int, rows: int, dtype: type = np.float32
) -> Drawn:
    r = np.random.default_rng(seed)
    x = activations(r, form, (*leading, inputs), dtype)
    return {"x": x, **stored(r, form, dtype, "weight", rows, inputs)}, attributes(form, rows=rows)


def embedding_inputs(
    seed: int, form: str, ids: tuple[int, ...], rows: int, dim: int, dtype: type = np.float32
) -> Drawn:
    r = np.random.default_rng(seed)
    every = np.resize(r.permutation(rows), ids)  # each row where there are so many ids
    return {"ids": every, **stored(r, form, dtype, "weight", rows, dim)}, attributes(form, dim=dim)


def moe_inputs(
    seed: int, n: int, D: int, E: int, K: int, F: int, Fs: int, dtype: type = np.float32, form: str = PLAIN
) -> dict[str, Array]:
    r = np.random.default_rng(seed)
    index = np.stack([r.permutation(E)[:K] for _ in range(n)]) if n else np.zeros((0, K))
    weights = {
        **stored(r, form, dtype, "routed_gate_up", E, 2 * F, D),
        **stored(r, form, dtype, "routed_down", E, D, F),
        **stored(r, form, dtype, "shared_gate_up", 2 * Fs, D),
        **stored(r, form, dtype, "shared_down", D, Fs),
    }
    return {
        "x": activations(r, form, (n, D), dtype),
        "expert_index": index.astype(np.int64),
        "expert_weight": (r.standard_normal((n, K)) / K**0.5).astype(dtype),
        **{name: weights[name] for name in sorted(weights, key=lambda name: name.endswith("_scale"))},
    }


def _dtype(draw: st.DrawFn, form: str) -> type:
    """Rounded weights are multiplied by float32."""
    return draw(_dtypes) if form == PLAIN else np.float32


@st.composite
def linear(draw: st.DrawFn, form: str) -> Drawn:
    """No row to 40 rows of activations, with leading axes; rows and inputs that fill their tiles and blocks or not."""
    leading = draw(st.sampled_from([(0,), (1,), (1, 1), (2,), (2, 3), (40,)]))
    inputs, rows = draw(st.sampled_from([1, 32, 70, 300])), draw(st.sampled_from([1, 16, 37, 160]))
    return linear_inputs(draw(_seeds), form, leading, inputs, rows, _dtype(draw, form))


@st.composite
def embedding(draw: st.DrawFn, form: str) -> Drawn:
    rows, dim = draw(st.sampled_from([1, 16, 50])), draw(st.sampled_from([1, 32, 70]))
    ids = draw(st.sampled_from([(1, 1), (2, 5), (1, 0)]))
    return embedding_inputs(draw(_seeds), form, ids, rows, dim, _dtype(draw, form))


@st.composite
def moe(draw: st.DrawFn, form: str) -> Drawn:
    """No token to 40, one expert to nine, one chosen to all, experts that nobody chose, with and without shared."""
    E = draw(st.integers(1, 9))
    K, n = draw(st.integers(1, E)), draw(st.integers(0, 40))
    D, F = draw(st.sampled_from([1, 16, 64, 85])), draw(st.sampled_from([1, 8, 33, 64]))
    inputs = moe_inputs(draw(_seeds), n, D, E, K, F, draw(st.sampled_from([0, 5, 16, 48])), _dtype(draw, form), form)
    flat = [(n,)] if form != PLAIN else []  # a plug-in takes a batch
    leading = draw(st.sampled_from([(1, n), *([(2, n // 2)] if n % 2 == 0 else []), *flat]))
    for name in ("x", "expert_index", "expert_weight"):
        inputs[name] = inputs[name].reshape(*leading, inputs[name].shape[1])
    return inputs, attributes(form)


CASES = {"linear": linear, "embedding": embedding, "moe": moe}
