"""Lines of int8 caches in numpy: bit for bit what the model rounds."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mythos_model import cache_lines
from mythos_runtime.lines import pack, unpack


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from([1, 2, 7, 16, 33]), min_size=1, max_size=4))
def test_packs_and_unpacks_as_the_model_does(seed: int, parts: list[int]) -> None:
    r = np.random.default_rng(seed)
    sizes = np.repeat(
        np.exp(20 * r.standard_normal((2, 9, len(parts)))) * (r.random((2, 9, len(parts))) < 0.9), parts, -1
    )
    lines = (r.standard_normal((2, 9, sum(parts))) * sizes).astype(np.float32)
    packed, given_lines = pack(lines, parts), torch.from_numpy(lines)
    assert np.array_equal(packed, cache_lines.pack(given_lines, parts).numpy())
    values = unpack(packed, parts)
    assert values.dtype == np.float32 and np.array_equal(values, cache_lines.rounded_parts(given_lines, parts).numpy())
    assert np.array_equal(pack(values, parts), packed)  # what is rounded comes back
    assert pack(lines[:, :0], parts).shape == (2, 0, packed.shape[-1])


def test_edges_of_the_numbers() -> None:
    most = np.finfo(np.float32).max
    lines = np.array([[0, 0, most, -1e38], [2.0**-101, 0, 2.0**-100, -(2.0**-101)], [3e38, 1, -3e38, 3]], np.float32)
    packed = pack(lines, (2, 2))
    assert np.array_equal(packed, cache_lines.pack(torch.from_numpy(lines), (2, 2)).numpy())
    assert np.abs(unpack(packed, (2, 2)) - lines).max() < most / 127
    for broken in (np.nan, np.inf, -np.inf):
        for place in range(3):
            line = np.arange(1, 6, dtype=np.float32)
            line[place] = broken
            for found in (unpack(pack(line, (3, 2)), (3, 2)), cache_lines.rounded_line(torch.from_numpy(line[:3]), 3)):
                assert np.isnan(np.asarray(found)[:3]).all()
            assert np.allclose(unpack(pack(line, (3, 2)), (3, 2))[3:], [4, 5], rtol=0.01)
