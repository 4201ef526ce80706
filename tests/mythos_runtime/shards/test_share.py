"""Every choice goes to the shard that has its expert, once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mythos_runtime.shards.share import shares


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_each_pair_is_somebodys_once(seed: int, rows: int, counts: list[int]) -> None:
    r, experts = np.random.default_rng(seed), sum(counts)
    chosen = int(r.integers(1, experts + 1))
    choices = np.array([r.permutation(experts)[:chosen] for _ in range(rows)], np.int64).reshape(rows, chosen)
    owners, firsts = np.repeat(np.arange(len(counts)), counts), np.cumsum([0, *counts[:-1]])
    seen = np.full(choices.size, -1)
    for shard, share in enumerate(shares(choices, owners, firsts)):
        if share is None:
            assert not (owners[choices] == shard).any()
            continue
        assert (seen[share.pairs] == -1).all()
        seen[share.pairs] = share.expert + firsts[shard]
        assert np.array_equal(share.rows[share.row], share.pairs // chosen)  # a pair finds its row
        assert len(set(share.rows.tolist())) == len(share.rows)  # which is sent once
    assert np.array_equal(seen, choices.ravel())
