"""How long finished positions wait for others to leave with them, and how many loops a call runs."""

from __future__ import annotations

import math
from typing import NamedTuple

from mythos_runtime.engine.speculation import Speed
from mythos_runtime.row_ports import ENTER, LEAVE, MOST_LOOPS, STEP

CALL_SECONDS = 0.05  # of a call of several loops: what a newcomer may have to wait


class Traffic(NamedTuple):
    """Requests that run; those of them that are on their way through the loop, or behind it; those that are behind it,
    and wait to leave."""

    running: int
    looping: int
    through: int


class Pace:
    """By what calls took lately, `speed`; patience and loops_per_call as `Engine` has them."""

    def __init__(self, patience: float | None, loops_per_call: int | None, speed: Speed) -> None:
        self.patience, self.loops_per_call, self.speed = patience, loops_per_call, speed
        self._idled = 0.0  # seconds that waiting to leave has cost, since some left

    def left(self) -> None:
        """Those that waited to leave have left."""
        self._idled = 0.0

    def waits(self, traffic: Traffic) -> bool:
        """Whether finished positions wait for others through one more loop."""
        if traffic.through >= traffic.looping:
            return False
        if self.patience is not None:
            return not self._enough(traffic)
        self._idled += self._idling(traffic)
        return self._idled < self._around()

    def ran(self, loops: int, traffic: Traffic) -> None:
        """A call has run so many loops, the first of which `waits` has counted."""
        if traffic.through and loops > 1:
            self._idled += (loops - 1) * self._idling(traffic)

    def most_loops(self, rows: int, traffic: Traffic) -> int:
        """Of the next call of the step, of so many rows: not more than those that wait to leave wait for, and one where
        a request that runs waits to enter, or where those that would leave now did not fit into the call of others."""
        if traffic.looping < traffic.running or self._enough(traffic):
            return 1
        most = MOST_LOOPS if self.loops_per_call is None else self.loops_per_call
        if traffic.through and self.patience is None:
            idling = self._idling(traffic)
            most = min(most, math.ceil((self._around() - self._idled) / idling)) if idling else 1
        if self.loops_per_call is None:
            seconds = self.speed.of(STEP, rows)
            most = min(most, int(CALL_SECONDS / seconds)) if seconds else 1
        return max(most, 1)

    def _enough(self, traffic: Traffic) -> bool:
        """Whether as many wait to leave as the patience that was given asks for."""
        return self.patience is not None and traffic.through >= max(1, round(self.patience * traffic.running))

    def _idling(self, traffic: Traffic) -> float:
        """Seconds that one more loop costs those that wait to leave: of a call of the step, what it costs whatever its
        rows is what fewer rows make worse."""
        return self.speed.of_call(STEP) * traffic.through / traffic.looping

    def _around(self) -> float:
        """Seconds of one more call of the layers around the loop."""
        return self.speed.of_call(ENTER) + self.speed.of_call(LEAVE)
