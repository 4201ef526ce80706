"""Halting at an exact tie: a stage is given, as its threshold, the very number that it computed.

No input makes the float64 model and a stage agree to the last bit, so the tie is planted stage by stage: one call that
never halts tells what decides, a second one is given that as its threshold, a third one the float next to it. What has
to happen says eager PyTorch, asked the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mythos_export.verify.compare import Problem
from mythos_export.verify.covering import NEVER, TIE
from mythos_export.verify.past import Past
from mythos_export.verify.trace import Trace, halting
from mythos_export.verify.truth import Truth
from mythos_runtime.spec import LoopSpec

Watch = Callable[[Mapping[str, np.ndarray]], Trace | None]
"""Runs a call and shows its loop."""

_LOOPS = 3
EXACT_TIE = "an exact tie"  # what stands for a case's name in a failure


@dataclass(frozen=True)
class Tie:
    """A token that stands alone, a loop counted from 0, and whether it halts there where what decides is the threshold,
    and where the threshold is the next larger float."""

    token: int
    loop: int
    at: bool
    beyond: bool


def make_tie(truth: Truth) -> Tie | None:
    """What eager does; None where the exit rule decides nothing by a threshold."""
    case = next(asked.case for asked in truth.asked if asked.case.name == TIE)
    for token in case.input("ids")[:, 0].tolist():
        for loop in (1, 0):
            decided = _decide(truth.model.spec, token, loop, truth.watch)
            if decided is None:
                return None
            if decided[0] != decided[1]:
                return Tie(token, loop, *decided)
    return None


def problem_at_tie(spec: LoopSpec, tie: Tie, watch: Watch) -> Problem | None:
    """What a stage does otherwise; None where it does the same, or does not show its loop."""
    decided, who = _decide(spec, tie.token, tie.loop, watch), halting(spec)
    if decided is None or who is None or decided == (tie.at, tie.beyond):
        return None
    exactly = decided[0] != tie.at
    where = "exactly the threshold" if exactly else "one unit in the last place below the threshold"
    found, wanted = (decided[0], tie.at) if exactly else (decided[1], tie.beyond)
    does, due = ("halts" if halts else "does not halt" for halts in (found, wanted))
    words = f"a token whose {who.of} is {where} {does}, where by the exit rule it {due}"
    return Problem(who.name, tie.loop + 1, words, position=(0, 0))


def _decide(spec: LoopSpec, token: int, loop: int, watch: Watch) -> tuple[bool, bool] | None:
    """Whether the token halts in that loop, at the tie and at the float beyond it."""
    who = halting(spec)
    if who is None or who.of is None or spec.exit.knob("halt_threshold") is None:
        return None
    past = Past.empty(spec, 1, 0, _LOOPS)

    def run(threshold: np.float32) -> Trace | None:
        return watch(past.inputs(np.array([[token]]), [1], _LOOPS, float(threshold), early_exit=False))

    first = run(np.float32(NEVER))
    if first is not None and first[who.name][0].all():  # a rule that falls below its threshold
        first = run(np.float32(-NEVER))
    if first is None:
        return None
    reached = np.float32(first[who.of][loop, 0, 0])
    at, beyond = (run(threshold) for threshold in (reached, np.nextafter(reached, np.float32(np.inf))))
    assert at is not None and beyond is not None
    return _halts(at, who.name, loop), _halts(beyond, who.name, loop)


def _halts(trace: Trace, name: str, loop: int) -> bool:
    """In this loop and not before."""
    return bool(trace[name][loop].all()) and not trace[name][:loop].any()
