"""Which thresholds a call may ask for, and what it then runs with."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_spec import spec

from mythos_runtime.errors import RequestError
from mythos_runtime.knobs import halt_threshold
from mythos_runtime.spec import ExitRule, Knob, LoopSpec

MOST = float(np.finfo(np.float32).max)


def with_knob(default: float = 0.99, least: float | None = None, most: float | None = None) -> LoopSpec:
    return replace(spec(), exit=ExitRule("act", "a sum", (Knob("halt_threshold", default, least, most, "a sum"),)))


@pytest.mark.parametrize(
    ("asked", "runs"),
    [
        (None, np.float32(0.99)),
        (0.1, np.float32(0.1)),
        (np.float32(-2), -2.0),
        (3, 3.0),
        (MOST, MOST),
        (math.inf, MOST),
        (-math.inf, -MOST),  # -inf is the engine's own: with it a row that has halted is not spared in its last loop
        (np.float64(-math.inf), -MOST),
    ],
)
def test_a_call_runs_with_a_finite_float32(asked: Any, runs: float) -> None:
    assert halt_threshold(with_knob(), asked) == runs


def test_as_trained_is_finite_too() -> None:
    assert halt_threshold(with_knob(default=1e300), None) == MOST
    assert math.isnan(halt_threshold(replace(spec(), exit=ExitRule("fixed", "all loops")), None))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (math.nan, "halt_threshold should be a finite number, found nan"),
        (np.float32("nan"), "halt_threshold should be a finite number, found np.float32(nan)"),
        (True, "halt_threshold should be a number, found True"),
        ("0.5", "halt_threshold should be a number, found '0.5'"),
        (-1e39, "halt_threshold should be a float32 from 0.0 to 8.0, found -1e+39"),
        (-0.5, "halt_threshold should be a float32 from 0.0 to 8.0, found -0.5"),
        (math.inf, "halt_threshold should be a float32 from 0.0 to 8.0, found inf"),
    ],
)
def test_what_is_none_is_refused(asked: Any, words: str) -> None:
    with pytest.raises(RequestError) as error:
        halt_threshold(with_knob(least=0.0, most=8.0), asked)
    assert str(error.value) == words


def test_a_model_without_one_takes_none() -> None:
    for asked in (0.5, math.nan):
        with pytest.raises(RequestError, match=r"this model \(toy\) has no halt_threshold: all loops"):
            halt_threshold(replace(spec(), exit=ExitRule("fixed", "all loops")), asked)
