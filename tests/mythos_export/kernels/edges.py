"""Cases on both sides of every size that a kernel is cut at: what generated cases may miss, these do not.

Registers of 4, 8 and 16 floats, tiles of rows, blocks of inputs, panels, blocks of keys. `test_edges.py` asks the
library what it is cut at and holds the sizes here to that; `cpu/edges_test.cpp` takes their combinations.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
from operator_cases import Array, OperatorCase, cache_inputs
from product_cases import attributes, embedding_inputs, linear_inputs, moe_inputs

from mythos_model.formats import PLAIN

WIDTHS = (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33)
DEPTHS = (*WIDTHS, 47, 48, 49, 63, 64, 65, 127, 128, 129, 255, 256, 257, 4095, 4096, 4097)
"""Inputs of a product."""
COLUMNS = (*WIDTHS, 2, 11, 12, 13, 23, 24, 25, 63, 64, 65, 81)
"""Outputs of a product."""
TOKENS = (1, 2, 3, 4, 5, 6, 7, 1, 8, 9, 11, 12, 13, 1, 23, 24, 25)
KEYS = (0, 1, 31, 32, 33, 63, 64, 65)
"""Filled entries of a cache."""
CHUNKS = (1, 2, 1, 3, 31, 1, 32, 33, 47, 48, 49, 1, 64, 65)
"""New tokens of an attention."""


def _cycled(*lists: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every value of each list once or more, side by side; the lists' lengths differ, and so do the pairs."""
    for i in range(max(map(len, lists))):
        yield tuple(values[i % len(values)] for values in lists)


def _linear(form: str, dtype: type) -> Iterator[OperatorCase]:
    for n, inputs, rows in _cycled(TOKENS, DEPTHS, COLUMNS):
        yield OperatorCase("linear", *linear_inputs(n, form, (n,), inputs, rows, dtype))


def _embedding(form: str, dtype: type) -> Iterator[OperatorCase]:
    for dim, rows in _cycled(WIDTHS, (1, 15, 16, 17, 33)):
        yield OperatorCase("embedding", *embedding_inputs(dim, form, (rows,), rows, dim, dtype))


def _moe(form: str, dtype: type) -> Iterator[OperatorCase]:
    for n, D, F, Fs in _cycled(TOKENS, DEPTHS, (1, 15, 16, 17, 32, 33, 48), (0, 1, 16, 17, 33)):
        yield OperatorCase("moe", moe_inputs(n, n, D, 3, 2, F, Fs, dtype, form), attributes(form))


def _cache(seed: int, T: int, keys: int, C: int, dtype: type) -> dict[str, Array]:
    """Two sequences of `keys` and of no entries, nothing padded."""
    inputs = cache_inputs(seed, 2, T, keys + seed % 3, C, dtype)
    r = np.random.default_rng(seed)
    lengths = np.array([keys, 0])
    past = r.standard_normal(inputs["past"].shape)
    past[:, 0, keys:], past[:, 1] = np.nan, np.nan
    chunk = r.standard_normal(inputs["chunk"].shape).astype(dtype)
    positions = lengths[:, None] + np.arange(T)
    return {**inputs, "past": past.astype(dtype), "chunk": chunk, "positions": positions, "past_lengths": lengths}


def _gqa(form: str, dtype: type) -> Iterator[OperatorCase]:
    for T, keys, head, shared in _cycled(CHUNKS, KEYS, WIDTHS, (1, 2, 3)):
        q = np.random.default_rng(T).standard_normal((2, T, 2 * shared, head)).astype(dtype)
        inputs = {"q": q, **_cache(keys, T, keys, 4 * head, dtype)}
        yield OperatorCase("gqa_attention", inputs, {"scale": 0.25, "kv_heads": 2})


def _mla(form: str, dtype: type) -> Iterator[OperatorCase]:
    """The lists begin at different places, so that widths of one case differ."""
    for T, keys, nope, v, R, rope in _cycled(CHUNKS, KEYS, WIDTHS, WIDTHS[5:] + WIDTHS[:5], (*WIDTHS[9:], 64), (2, 6)):
        r = np.random.default_rng(T)
        inputs = {
            "q_nope": r.standard_normal((2, T, 2, nope)).astype(dtype),
            "q_rope": r.standard_normal((2, T, 2, rope)).astype(dtype),
            **_cache(keys, T, keys, R + rope, dtype),
            "kv_up": (r.standard_normal((2 * (nope + v), R)) / R**0.5).astype(dtype),
        }
        yield OperatorCase("mla_attention", inputs, {"scale": 0.25, "v_head_dim": v})


_MAKERS = {"linear": _linear, "embedding": _embedding, "moe": _moe, "gqa_attention": _gqa, "mla_attention": _mla}


@functools.cache
def edge_cases(op: str, form: str) -> tuple[OperatorCase, ...]:
    """In float32, and where weights are plain every other case in float16."""
    full = list(_MAKERS[op](form, np.float32))
    if form == PLAIN:
        full[1::2] = list(_MAKERS[op](form, np.float16))[1::2]
    return tuple(full)


OPERATORS_WITH_EDGES = tuple(_MAKERS)
