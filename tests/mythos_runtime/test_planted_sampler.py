"""Plants in the runtime's own sampler: what they get wrong shows, under the option that they break.

What is sound is the specification, number by number, in plain Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mythos_runtime import sampling
from mythos_runtime.sampling import Sampler, SamplingOptions

Patch = pytest.MonkeyPatch
Array = np.ndarray
VOCABULARY = 10


def by_the_book(logits: Array, seen: set[int], options: SamplingOptions, draw: Callable[[], float]) -> int:
    """The choice as the specification words it, number by number, in plain Python."""
    z = [float(value) for value in logits]
    for i in seen:
        z[i] = z[i] / options.repetition_penalty if z[i] > 0 else z[i] * options.repetition_penalty
    if options.temperature == 0:
        return max(range(len(z)), key=lambda i: (z[i], -i))
    d = [(value - max(z)) / options.temperature for value in z]
    order = sorted(range(len(z)), key=lambda i: (-d[i], i))
    if options.top_k:
        order = order[: options.top_k]
    sums, total = [], 0.0
    for i in order:
        total += math.exp(d[i])
        sums.append(total)
    keep = len(order)
    if options.top_p < 1:
        keep = next(n + 1 for n, each in enumerate(sums) if each >= options.top_p * sums[-1])
    if options.min_p > 0:
        keep = min(keep, sum(math.exp(d[i]) >= options.min_p for i in order))
    target = draw() * sums[keep - 1]
    return order[next((n for n in range(keep) if sums[n] > target), keep - 1)]


def split_mix(seed: int, row: int) -> Callable[[], float]:
    """Uniform numbers as the specification has them."""
    mask, golden = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def mix(x: int) -> int:
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & mask
        return x ^ x >> 31

    state = mix((seed + (row + 1) * golden) & mask)

    def draw() -> float:
        nonlocal state
        state = (state + golden) & mask
        return (mix(state) >> 11) * 2.0**-53

    return draw


OPTIONS = {
    "greedy": SamplingOptions(),
    "a temperature": SamplingOptions(temperature=0.7, seed=3),
    "top-k": SamplingOptions(temperature=1.0, top_k=3, seed=4),
    "top-p": SamplingOptions(temperature=1.0, top_p=0.6, seed=5),
    "min-p": SamplingOptions(temperature=1.3, min_p=0.3, seed=6),
    "a penalty": SamplingOptions(repetition_penalty=1.8),
    "all of them": SamplingOptions(0.9, 6, 0.8, 0.05, 1.2, seed=(1 << 64) - 1),
}


def sampled_otherwise() -> str | None:
    """The first of the options under which a row's tokens are not those of the book; None where all are."""
    r = np.random.default_rng(0)
    ties = np.round(r.standard_normal((40, VOCABULARY)) * 2).astype(np.float32) / 2  # equals are frequent
    for name, options in OPTIONS.items():
        for row in (0, 1):
            sampler = Sampler(options, row, VOCABULARY, np.array([1, 2]))
            seen, draw = {1, 2}, split_mix(options.seed, row)
            for step, logits in enumerate(ties):
                token = by_the_book(logits, seen, options, draw)
                if sampler.choose(logits) != token:
                    return f"{name}, row {row}, step {step}"
                seen.add(token)
    return None


def _candidates(change: Callable[..., Any]) -> Callable[[Patch], None]:
    def patch(monkeypatch: Patch) -> None:
        sound = sampling.candidates
        monkeypatch.setattr(sampling, "candidates", lambda scores, options: change(sound, scores, options))

    return patch


def _options(**fields: Callable[[Any], Any]) -> Callable[..., Any]:
    def change(sound: Any, scores: Array, options: SamplingOptions) -> Any:
        values = {name: getattr(options, name) for name in SamplingOptions.__dataclass_fields__}
        return sound(scores, SamplingOptions(**{**values, **{n: f(values[n]) for n, f in fields.items()}}))

    return change


def _reversed_ties(sound: Any, scores: Array, options: SamplingOptions) -> Any:
    ids, sums = sound(scores[::-1], options)
    return len(scores) - 1 - ids, sums


def _penalty(change: Callable[..., Array]) -> Callable[[Patch], None]:
    def patch(monkeypatch: Patch) -> None:
        sound = sampling.penalize
        monkeypatch.setattr(sampling, "penalize", lambda *given: change(sound, *given))

    return patch


def _always_divided(sound: Any, logits: Array, seen: Array, penalty: float) -> Array:
    scores = logits.astype(np.float64)
    scores[seen] /= penalty
    return scores


def _random(change: Callable[[Any], float]) -> Callable[[Patch], None]:
    def patch(monkeypatch: Patch) -> None:
        monkeypatch.setattr(sampling.SplitMix64, "uniform", lambda self: change(self))

    return patch


def _one_stream(monkeypatch: Patch) -> None:
    sound = sampling.SplitMix64.__init__
    monkeypatch.setattr(sampling.SplitMix64, "__init__", lambda self, seed, row=0: sound(self, seed, 0))


SAMPLER_PLANTS: dict[str, tuple[Callable[[Patch], None], str]] = {
    "one candidate more": (_candidates(_options(top_k=lambda k: k and k + 1)), "top-k"),
    "one candidate fewer": (_candidates(_options(top_k=lambda k: k and max(1, k - 1))), "top-k"),
    "no top-p": (_candidates(_options(top_p=lambda p: 1.0)), "top-p"),
    "a top-p of its square": (_candidates(_options(top_p=lambda p: p * p)), "top-p"),
    "no min-p": (_candidates(_options(min_p=lambda p: 0.0)), "min-p"),
    "the temperature twice": (_candidates(_options(temperature=lambda t: t * t)), "a temperature"),
    "equals the other way round": (_candidates(_reversed_ties), "a temperature"),
    "a penalty that always divides": (_penalty(_always_divided), "a penalty|all of them"),
    "a penalty on nobody": (_penalty(lambda sound, logits, seen, p: sound(logits, seen & False, p)), "a penalty"),
    "a penalty on everybody": (_penalty(lambda sound, logits, seen, p: sound(logits, seen | True, p)), "a penalty"),
    "32 random bits": (_random(lambda self: (self.next() >> 32) * 2.0**-31 % 1), "a temperature"),
    "two draws a token": (_random(lambda self: (self.next(), (self.next() >> 11) * 2.0**-53)[1]), "a temperature"),
    "one stream for all rows": (_one_stream, "a temperature, row 1"),
}


def test_a_sound_sampler_goes_by_the_book() -> None:
    assert sampled_otherwise() is None


@pytest.mark.parametrize("name", SAMPLER_PLANTS)
def test_a_planted_sampler_is_caught_under_the_option_that_it_breaks(name: str, monkeypatch: Patch) -> None:
    plant, where = SAMPLER_PLANTS[name]
    plant(monkeypatch)
    found = sampled_otherwise()
    assert found is not None, f"{name} slips past"
    assert any(found.startswith(each) for each in where.split("|")), found


def test_the_choice_of_the_largest_is_the_first_of_equals(monkeypatch: Patch) -> None:
    def last(scores: Array) -> int:
        return len(scores) - 1 - int(scores[::-1].tolist().index(scores.max()))

    monkeypatch.setattr(sampling.np, "argmax", last)
    found = sampled_otherwise()
    assert found is not None and found.startswith("greedy")
