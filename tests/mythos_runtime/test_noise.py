"""The random initial state: a known generator, a known distribution, and the same numbers whoever asks with whom."""

from __future__ import annotations

import statistics

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mythos_runtime.noise import _quantile, initial_state, philox
from mythos_runtime.spec import StateTensor

STATE = StateTensor("h", "float32", ("B", "T", 7), "noise", scale=0.5, cut=3.0)


def test_philox_gives_its_authors_known_answers() -> None:
    """Of Random123's kat_vectors, philox4x32 with 10 rounds."""
    ones = 0xFFFFFFFF
    assert philox(np.zeros(4, np.uint32), (0, 0)).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox(np.full(4, ones, np.uint32), (ones, ones)).tolist() == [
        *(0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    ]


def test_quantiles_are_those_of_the_normal_distribution() -> None:
    p = np.array([1e-9, 1e-3, 0.02, 0.0749, 0.0751, 0.3, 0.5, 0.7, 0.93, 0.999, 1 - 1e-9])
    exact = [statistics.NormalDist().inv_cdf(each) for each in p]
    assert np.allclose(_quantile(p), exact, rtol=1e-13, atol=1e-13)


def test_the_numbers_are_normal_and_cut() -> None:
    wide = StateTensor("h", "float32", ("B", "T", 64), "noise", scale=0.5, cut=3.0)
    drawn = initial_state(wide, np.arange(4000)[None], seed=3) / 0.5
    assert np.abs(drawn).max() <= 3.0
    assert abs(float(drawn.mean())) < 0.01
    assert abs(float(drawn.std()) - 0.9866) < 0.005  # of a normal distribution that is cut at 3 deviations


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=6), st.integers(0, (1 << 64) - 1), st.integers(1, 3))
def test_a_token_draws_the_same_alone_in_a_batch_and_in_chunks(positions: list[int], seed: int, batch: int) -> None:
    row = np.array(positions, np.int64)
    whole = initial_state(STATE, np.tile(row, (batch, 1)), seed)
    for index in range(len(row)):
        alone = initial_state(STATE, row[None, index : index + 1], seed)
        assert np.array_equal(whole[:, index], np.repeat(alone[0], batch, 0))


def test_padding_and_a_scale_of_zero_draw_nothing() -> None:
    drawn = initial_state(STATE, np.array([[0, -1]]))
    assert drawn[0, 0].any() and not drawn[0, 1].any()
    still = StateTensor("h", "float32", ("B", "T", 7), "noise", scale=0.0, cut=3.0)
    assert not initial_state(still, np.array([[0, 1]])).any()


def test_other_seeds_and_positions_draw_others() -> None:
    drawn = [
        initial_state(STATE, np.array([[position]]), seed) for position in (0, 1, 1 << 33) for seed in (0, 1, 1 << 40)
    ]
    assert len({each.tobytes() for each in drawn}) == 9
