"""Sampling follows its written specification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mythos_runtime import RequestError
from mythos_runtime.sampling import Sampler, SamplingOptions, SplitMix64, candidates

logits_of = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=40).map(lambda v: np.array(v, np.float32))


def test_the_generators_known_answer() -> None:
    assert SplitMix64(0, 0).state == 0xE220A8397B1DCDAF
    draws = [SplitMix64(3, row).uniform() for row in range(4)]
    assert len(set(draws)) == 4
    assert all(0 <= draw < 1 for draw in draws)


@given(logits=logits_of)
def test_greedy_takes_the_first_of_the_largest(logits: np.ndarray) -> None:
    assert Sampler(SamplingOptions(), 0, len(logits), np.array([0])).choose(logits) == int(np.argmax(logits))


@given(
    logits=logits_of,
    top_k=st.integers(0, 8),
    top_p=st.floats(0.05, 1),
    min_p=st.floats(0, 1),
    temperature=st.floats(0.1, 3),
)
def test_filters_keep_a_prefix_of_the_ranking(
    logits: np.ndarray, top_k: int, top_p: float, min_p: float, temperature: float
) -> None:
    scores = logits.astype(np.float64)
    ids, sums = candidates(scores, SamplingOptions(temperature, top_k, top_p, min_p))
    shifted = (scores - scores.max()) / temperature  # what is ranked: tiny differences are gone by then
    ranking = sorted(range(len(scores)), key=lambda i: (-shifted[i], i))
    assert list(ids) == ranking[: len(ids)]
    assert 1 <= len(ids) <= (top_k or len(scores))
    assert (np.diff(sums) >= 0).all()


def test_a_penalty_moves_the_choice_away_from_what_was_seen() -> None:
    logits = np.array([1.0, 0.9, -5.0], np.float32)
    sampler = Sampler(SamplingOptions(repetition_penalty=2.0), 0, 3, np.array([0]))
    assert [sampler.choose(logits), sampler.choose(logits)] == [1, 0]


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"min_p": 2}, {"top_k": -1}, {"seed": -1}])
def test_knobs_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RequestError):
        SamplingOptions(**wrong)  # type: ignore[arg-type]
