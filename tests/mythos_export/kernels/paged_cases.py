"""Generated calls of the attentions over a paged cache: several sequences and depths, NaN in all that is not theirs.

With int8 pages entries are what they are rounded to, so that no value is near the middle of two integers; and bytes
that are nobody's make scales that are no numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from mythos_export.kernels.rounded_line.reference import pack, unpack
from mythos_runtime.row_ports import PAGE

Array = NDArray[Any]
# Entries before the chunk, and rows of it: around a page's end, beyond a task's keys (8 pages), no chunk at all.
_before = st.sampled_from([0, 0, 1, 30, 31, 32, 33, 70, 255, 256, 300])
_rows = st.sampled_from([0, 1, 1, 1, 2, 3, 33, 70])
_few_rows = st.sampled_from([0, 1, 1, 2, 4])


def paged_inputs(seed: int, spans: list[tuple[int, int]], C: int, padding: int, dtype: type) -> dict[str, Array]:
    """entry, cache, tables, span, position of a call.

    Args:
        spans: entries before the call and rows of the call, of every (sequence, depth).
        padding: rows behind the others that are none.
    """
    r = np.random.default_rng(seed)
    blocks = max(1, *(-(-(before + rows) // PAGE) for before, rows in spans)) + int(r.integers(2))
    free = list(r.permutation(len(spans) * blocks + 3))
    cache = np.full((len(free), PAGE, C), np.nan)
    tables = r.choice([-7, 0, 2**40], (len(spans), blocks))  # what is behind the last row's page is not read
    span, position = [], []
    for s, (before, rows) in enumerate(spans):
        for b in range(-(-(before + rows) // PAGE)):
            # The first page of another sequence, where both are beyond it: a prefix in common.
            shared = s > 0 and b == 0 and before >= PAGE <= spans[s - 1][0] and r.random() < 0.5
            tables[s, b] = tables[s - 1, b] if shared else free.pop()
            filled = min(before - b * PAGE, PAGE)
            if not shared and filled > 0:
                cache[tables[s, b], :filled] = r.standard_normal((filled, C))
        span += [s] * rows
        position += range(before, before + rows)
    order = r.permutation(len(span)) if r.random() < 0.3 else np.arange(len(span))
    entry = np.concatenate([r.standard_normal((len(span), C)), np.full((padding, C), np.nan)])
    return {
        "entry": entry.astype(dtype),
        "cache": cache.astype(dtype),
        "tables": tables.astype(np.int64),
        "span": np.concatenate([np.array(span, np.int64)[order], np.full(padding, -1)]),
        "position": np.concatenate([np.array(position, np.int64)[order], r.integers(-1, 9, padding)]),
    }


def with_int8_pages(inputs: dict[str, Array], parts: tuple[int, ...]) -> dict[str, Array]:
    """The call of `paged_inputs` over int8 lines."""
    nobodys = np.isnan(inputs["cache"]).any(-1)
    cache = pack(np.nan_to_num(inputs["cache"]), parts)
    cache[nobodys] = -1
    real = inputs["span"] >= 0
    entry = np.where(real[:, None], unpack(pack(np.nan_to_num(inputs["entry"]), parts), parts, np.float32), np.nan)
    return inputs | {"cache": cache, "entry": entry.astype(np.float32)}


@st.composite
def _calls(draw: st.DrawFn, C: int, dtype: type, few: bool) -> dict[str, Array]:
    """The inputs of a call with one row or more."""
    rows, most = (_few_rows, 3) if few else (_rows, 5)
    spans = draw(st.lists(st.tuples(_before, rows), min_size=1, max_size=most))
    padding = draw(st.sampled_from([0, 0, 1, 5]))
    if not sum(rows for _, rows in spans) + padding:
        padding = 1
    return paged_inputs(draw(st.integers(0, 2**32 - 1)), spans, C, padding, dtype)


def _queries(r: np.random.Generator, inputs: dict[str, Array], *shape: int) -> Array:
    """NaN in padding."""
    q = r.standard_normal((len(inputs["span"]), *shape))
    q[inputs["span"] < 0] = np.nan
    return q.astype(inputs["entry"].dtype)


@st.composite
def gqa(draw: st.DrawFn, few: bool = False, packed: bool = False) -> tuple[dict[str, Array], dict[str, Any]]:
    """One to four query heads for each of one to three kv heads. `few`: rows, for an interpreter. `packed`: int8."""
    dtype = np.float32 if packed else draw(st.sampled_from([np.float32, np.float16]))
    G, shared, head = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.sampled_from([2, 11, 32]))
    inputs = draw(_calls(2 * G * head, dtype, few))
    if packed:
        inputs = with_int8_pages(inputs, (head,) * (2 * G))
    r = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return {"q": _queries(r, inputs, G * shared, head), **inputs}, {"scale": 0.25, "kv_heads": G}


@st.composite
def mla(draw: st.DrawFn, few: bool = False, packed: bool = False) -> tuple[dict[str, Array], dict[str, Any]]:
    """One head to five, and fifty: more than a task of the CPU kernel takes. `few` and `packed` as in `gqa`."""
    dtype = np.float32 if packed else draw(st.sampled_from([np.float32, np.float16]))
    H = draw(st.sampled_from([1, 2, 3, 4, 5, 50]))
    nope, rope, v, R = (draw(st.sampled_from(s)) for s in ([1, 13, 32], [2, 6, 16], [1, 10, 32], [4, 21, 64]))
    inputs = draw(_calls(R + rope, dtype, few))
    if packed:
        inputs = with_int8_pages(inputs, (R, rope))
    r = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    queries = {"q_nope": _queries(r, inputs, H, nope), "q_rope": _queries(r, inputs, H, rope)}
    kv_up = (r.standard_normal((H * (nope + v), R)) / R**0.5).astype(dtype)
    return {**queries, **inputs, "kv_up": kv_up}, {"scale": 0.25, "v_head_dim": v}
