"""How long finished positions wait, and how many loops a call runs: arithmetic of what calls took lately."""

from __future__ import annotations

import math

import pytest
from row_models import RowModel

from mythos_runtime import RequestError
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.pace import CALL_SECONDS, Pace, Traffic
from mythos_runtime.engine.speculation import Speed
from mythos_runtime.row_ports import ENTER, LEAVE, MOST_LOOPS, STEP


def speed(step: float, row: float = 0.0, around: float = 0.0) -> Speed:
    """Of calls that take `step` seconds and `row` more for each row, and of those around the loop."""
    made = Speed()
    for rows in (1, 5):
        made.lines[STEP].add(rows, step + row * rows)
    for graph in (ENTER, LEAVE):
        made.lines[graph].add(1, around)
        made.lines[graph].add(9, around)
    return made


def test_a_call_runs_as_many_loops_as_fit_its_time() -> None:
    pace, alone = Pace(None, None, speed(1e-3, 1e-4)), Traffic(1, 1, 0)
    assert pace.most_loops(10, alone) == int(CALL_SECONDS / 2e-3)
    assert pace.most_loops(100_000, alone) == 1  # never less than one
    assert Pace(None, None, Speed()).most_loops(1, alone) == 1  # nothing is known yet
    assert Pace(None, None, speed(1e-9)).most_loops(1, alone) == MOST_LOOPS
    assert Pace(None, 7, speed(1.0)).most_loops(1, alone) == 7  # asked for, whatever it takes


def test_loop_by_loop_while_a_request_that_runs_waits_to_enter() -> None:
    assert Pace(None, 7, Speed()).most_loops(1, Traffic(running=3, looping=2, through=0)) == 1


@pytest.mark.parametrize("around", [0.0003, 0.0036, 0.0039, 0.0203])
def test_those_that_wait_to_leave_wait_as_long_as_loop_by_loop(around: float) -> None:
    traffic = Traffic(running=4, looping=4, through=2)  # a loop costs those two half a millisecond

    def loops(at_a_time: int) -> int:
        pace, ran = Pace(None, at_a_time, speed(1e-3, around=around / 2)), 0
        while pace.waits(traffic):
            most = pace.most_loops(1, traffic)
            pace.ran(most, traffic)
            ran += most
        return ran

    assert loops(1) == loops(2) == loops(MOST_LOOPS) == math.ceil(around / 5e-4) - 1


def test_a_share_that_waits_does_not_end_a_call() -> None:
    pace = Pace(0.5, 7, Speed())
    assert pace.waits(Traffic(8, 8, 3)) and pace.most_loops(1, Traffic(8, 8, 3)) == 7
    assert pace.most_loops(1, Traffic(8, 8, 4)) == 1  # one who did not fit into the call of those that left
    assert not pace.waits(Traffic(8, 8, 4)) and not pace.waits(Traffic(8, 2, 2))


def test_many_calls_alike_count_as_many() -> None:
    one, other = Speed(), Speed()
    for _ in range(16):
        one.lines[STEP].add(4, 0.5)
    other.lines[STEP].add(4, 0.5, 16)
    assert other.lines[STEP].fit() == pytest.approx(one.lines[STEP].fit())
    assert other.lines[STEP].weight == pytest.approx(one.lines[STEP].weight)


def test_a_call_of_no_loop_is_refused(row_model: RowModel) -> None:
    with pytest.raises(RequestError, match="loops_per_call should be an integer of at least 1, found 0"):
        Engine(row_model.core(), loops_per_call=0)
