"""What `mythos verify --against` draws: the whole of every range, and never what no caller could ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import handmade
import numpy as np
import pytest

from mythos_export.verify.cases import LONG, SHORT, Question, random_questions
from mythos_export.verify.coverage import _padding
from mythos_runtime.ports import numpy_dtype, shape_of

COUNT = 600
SPEC = replace(handmade.spec(), max_seq_len=256)


def outputs(question: Question) -> Mapping[str, np.ndarray]:
    batch, tokens = question.inputs["input_ids"].shape
    sizes = {"B": batch, "T": tokens, "N": len(question.inputs["past_loop"])}
    return {port.name: np.ones(shape_of(port, sizes), numpy_dtype(port.dtype)) for port in SPEC.ports.outputs}


def true(question: Question) -> Any:
    """As far as a near tie is made of it: what decides."""
    real = question.inputs["positions"] >= 0
    decides = np.random.default_rng(0).random((2, *real.shape)).astype(np.float32)
    return SimpleNamespace(trace={"moved": decides}, real=real)


@pytest.fixture(scope="module")
def drawn() -> list[dict[str, np.ndarray]]:
    return [question.inputs for question in random_questions(SPEC, COUNT, 5, outputs, true)]


def test_every_size_is_drawn_from_end_to_end(drawn: list[dict[str, np.ndarray]]) -> None:
    shapes = np.array([each["input_ids"].shape for each in drawn])
    assert {*shapes[:, 0]} == {*range(1, 7)}
    assert {*range(1, SHORT[0] + 1), LONG[0]} <= {*shapes[:, 1]} <= {*range(1, LONG[0] + 1)}
    held = np.concatenate([each["past_lengths"] for each in drawn])
    assert held.min() == 0 and held.max() > 2 * 32 and {*range(SHORT[1])} <= {*held.tolist()} <= {*range(LONG[1] + 1)}
    loops = np.array([int(each["max_loops"]) for each in drawn])
    assert {*loops} == {*range(SPEC.trained_loops + 5)}
    depths = np.array([len(each["past_loop"]) for each in drawn])
    assert {*(depths - loops)} == {0, 1, 2} and all(depths[loops == 0] >= 1)


def test_thresholds_are_the_model_s_own_beyond_any_probability_and_near_ties(
    drawn: list[dict[str, np.ndarray]],
) -> None:
    knob = SPEC.exit.knob("halt_threshold")
    assert knob is not None
    found = [float(each["halt_threshold"]) for each in drawn]
    assert {np.float32(knob.default), -1.0, 0.0, np.float32(0.9999), 1.5, 1e9} <= {*np.float32(found)}
    ties = [each for at, each in enumerate(drawn) if at % 6 == 5 and int(each["max_loops"])]
    decides = [true(Question("", each)).trace["moved"] for each in ties]
    assert len(ties) > COUNT // 8
    assert all(
        (values[:, each["positions"] >= 0] == each["halt_threshold"]).any()
        for values, each in zip(decides, ties, strict=True)
    )
    assert {bool(each["early_exit"]) for each in drawn} == {True, False}


def test_padding_is_anywhere_and_no_call_is_only_padding(drawn: list[dict[str, np.ndarray]]) -> None:
    kinds: set[Any] = set()
    for each in drawn:
        real = each["positions"] >= 0
        assert real.any(1).all()
        for row, length in zip(real, each["past_lengths"], strict=True):
            kinds |= _padding(row, int(length))
        behind = each["past_lengths"][:, None] + real.cumsum(1) - 1
        assert np.array_equal(each["positions"][real], behind[real]) and behind.max() < SPEC.max_seq_len
    wanted = {kind + past for kind in ("none", "left", "inner", "right") for past in ("", ", with a past")}
    assert kinds == wanted
