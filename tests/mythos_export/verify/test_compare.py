"""A case held against an answer: what is named first, near ties, and what is left out of the comparison."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mythos_export.verify.compare import compare
from mythos_export.verify.golden import Golden
from mythos_export.verify.trace import Answer, Trace, names


def true_answer(golden: Golden, index: int) -> Answer:
    case = golden.cases[index]
    return Answer(dict(case.outputs), case.trace)


def with_trace(answer: Answer, **arrays: np.ndarray) -> Answer:
    assert answer.trace is not None
    return Answer(answer.outputs, Trace({**answer.trace.arrays, **arrays}))


def test_the_truth_agrees_with_itself(golden: Golden) -> None:
    for index, case in enumerate(golden.cases):
        comparison = compare(case, true_answer(golden, index), golden.tolerances)
        assert not comparison.problems and not comparison.near_ties
        assert all(error == 0 for series in comparison.errors.values() for error in series)
        assert np.array_equal(comparison.clean, case.real)


def test_a_turned_decision_is_a_near_tie_only_within_the_band(golden: Golden) -> None:
    case, answer = golden.cases[0], true_answer(golden, 0)
    halted = case.trace["halted"].copy()
    halted[0, 0, 4] ^= True
    turned = with_trace(answer, halted=halted)
    for margin, problems, ties in ((1e-9, 0, 1), (0.2, 1, 0)):
        margins = case.margins["halted"].copy()
        margins[0, 0, 4] = margin
        near = dataclasses.replace(case, margins={**case.margins, "halted": margins})
        comparison = compare(near, turned, golden.tolerances)
        assert len(comparison.problems) == problems and len(comparison.near_ties) == ties
        # That position and those that attend to it are left out, and no others.
        left_out = case.real & ~comparison.clean
        assert np.argwhere(left_out).tolist() == [[0, token] for token in range(4, case.real.shape[1])]
    assert comparison.problems[0].tensor == "halted" and comparison.problems[0].position == (0, 4)


@pytest.mark.parametrize("tensor", ["entries", "weights", "h", "cumulative", "out"])
def test_the_first_wrong_tensor_is_the_one_that_is_named(golden: Golden, tensor: str) -> None:
    index = next(i for i, case in enumerate(golden.cases) if case.name == "one token each")
    answer = true_answer(golden, index)
    assert answer.trace is not None
    order = names(golden.spec)
    later = order[order.index(tensor) :]
    wrong = {name: answer.trace[name].copy() for name in later if name not in ("experts", "depth", "halted")}
    for array in wrong.values():
        array[2:] *= 1.01
    first = compare(golden.cases[index], with_trace(answer, **wrong), golden.tolerances).problems[0]
    assert (first.tensor, first.iteration) == (tensor, 3)


def test_experts_may_come_in_any_order_with_their_weights(golden: Golden) -> None:
    case, answer = golden.cases[1], true_answer(golden, 1)
    trace = case.trace
    flipped = with_trace(answer, experts=trace["experts"][..., ::-1], weights=trace["weights"][..., ::-1])
    assert not compare(case, flipped, golden.tolerances).problems
    without = with_trace(answer, experts=trace["experts"][..., ::-1])
    assert compare(case, without, golden.tolerances).problems[0].tensor == "weights"


def test_an_expert_that_is_chosen_twice_is_wrong_at_an_exact_tie_too(golden: Golden) -> None:
    case, answer = golden.cases[1], true_answer(golden, 1)
    experts, margins = case.trace["experts"].copy(), case.margins["experts"].copy()
    margins[0, 0, 0] = 0.0
    tied = dataclasses.replace(case, margins={**case.margins, "experts": margins})
    other = next(expert for expert in range(99) if expert not in experts[0, 0, 0])
    experts[0, 0, 0, 1] = other
    assert not compare(tied, with_trace(answer, experts=experts), golden.tolerances).problems
    experts[0, 0, 0, 1] = experts[0, 0, 0, 0]
    first = compare(tied, with_trace(answer, experts=experts), golden.tolerances).problems[0]
    assert (first.tensor, first.iteration, first.position) == ("experts", 1, (0, 0))
    assert "one is chosen twice" in first.text


def test_nan_never_passes(golden: Golden) -> None:
    answer = true_answer(golden, 0)
    logits = golden.cases[0].outputs["logits"].copy()
    logits[0, 2, 3] = np.nan
    problem = compare(golden.cases[0], Answer({**answer.outputs, "logits": logits}, answer.trace), None).problems[0]
    assert problem.tensor == "logits" and problem.position == (0, 2)
    assert "NaN" in problem.text


def test_other_shapes_are_wrong_even_where_numpy_would_broadcast(golden: Golden) -> None:
    case, answer = golden.cases[1], true_answer(golden, 1)
    logits = case.outputs["logits"][:1]
    first = compare(case, Answer({**answer.outputs, "logits": logits}, answer.trace), golden.tolerances).problems[0]
    assert first.tensor == "logits" and "has shape" in first.text
    thin = with_trace(answer, h=case.trace["h"][..., :1])
    first = compare(case, thin, golden.tolerances).problems[0]
    assert (first.tensor, first.iteration) == ("h", 1)


def test_without_a_look_inside_what_may_have_turned_is_left_out(golden: Golden) -> None:
    case = golden.cases[0]
    margins = case.margins["experts"].copy()
    margins[0, 0, 5] = 1e-9
    near = dataclasses.replace(case, margins={**case.margins, "experts": margins})
    comparison = compare(near, Answer(case.outputs), golden.tolerances)
    assert not comparison.problems and len(comparison.near_ties) == 1
    assert not comparison.clean[0, 5:].any() and comparison.clean[0, :5].all()
