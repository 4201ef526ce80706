"""Who waits, who runs, and who is to leave: how requests are admitted, how they end, and which of them goes back to
wait for want of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

from mythos_runtime.batch import integer
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.pace import Traffic
from mythos_runtime.engine.pages import OutOfStates
from mythos_runtime.engine.prefixes import Prefixes
from mythos_runtime.engine.request import ERROR, WHOLE, Work
from mythos_runtime.engine.sequence import Sequence
from mythos_runtime.errors import RuntimeBundleError


class Queues:
    """Requests, with the sequences of those that run.

    Attributes:
        most_running: requests that run at a time.
        waiting: in the order they came; who was sent back stands before the others.
        running: in the order they were admitted.
        through: of those that run, whose positions are to leave; in this order.
        by_sequence: those that run.
    """

    def __init__(self, core: Core, prefixes: Prefixes, most_running: int) -> None:
        """Raises RequestError where `most_running` is no number of requests."""
        self.most_running = integer(most_running, "most_running", 1)
        self.waiting: deque[Work] = deque()
        self.running: list[Work] = []
        self.through: dict[Work, None] = {}
        self.by_sequence: dict[Sequence, Work] = {}
        self._core, self._prefixes = core, prefixes
        self._full = False  # one was sent back for want of memory, and none has ended since

    @property
    def traffic(self) -> Traffic:
        looping = sum(sequence.job is not None for sequence in self.by_sequence)
        return Traffic(len(self.running), looping, len(self.through))

    def passed(self, sequence: Sequence) -> None:
        """Whose positions are through the loop, to leave behind the others."""
        self.through.setdefault(self.by_sequence[sequence])

    # -- admission ----------------------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Let as many run as may."""
        # Who was sent back would take the pages that it gave again, and the others would never be done.
        while self.waiting and len(self.running) < self.most_running and not self._full:
            running = self.waiting[0]
            running.sequence = self._begin(running)  # where that fails it waits still
            self.waiting.popleft()
            self.by_sequence[running.sequence] = running
            self.running.append(running)

    def _begin(self, running: Work) -> Sequence:
        """A sequence for a request: a new one, or what is kept of one that began alike."""
        request = running.request
        found = None if request.depths else self._prefixes.find(np.asarray(request.prompt, np.int64), running.kind)
        if found is not None:
            sequence = self._forked(*found)
            if sequence is not None:
                running.fed = running.reused = sequence.length
                return sequence
        running.reused = 0  # whatever it found before it was sent back
        return self._core.open(running.limit, running.threshold, request.policy, request.state_seed)

    def _forked(self, kept: Sequence, length: int) -> Sequence | None:
        """The first positions of a kept sequence; None where there are no states for those that lag."""
        lag = max(length - kept.complete, 0)
        while True:
            try:
                return self._core.fork(kept, length)
            except OutOfStates:
                if not self._prefixes.drop_lagging(more_than=lag, but=kept):
                    return None

    # -- ends ---------------------------------------------------------------------------------------------------------

    def fail(self, running: Work, error: RuntimeBundleError) -> None:
        """End a request with an error of its own."""
        running.error = error
        self.end(running, ERROR)

    def end(self, running: Work, reason: str) -> None:
        """End a request, which waits or runs."""
        running.finished = reason
        if running.sequence is not None:
            self._stop(running, keep=reason in WHOLE)
            self._full = False
        else:
            self.waiting.remove(running)

    def _stop(self, running: Work, keep: bool = False) -> None:
        sequence, kept = running.sequence, False
        assert sequence is not None
        try:
            kept = keep and not sequence.capped and self._keep(running, sequence)
        finally:
            if not kept:
                self._core.close(sequence)
            running.sequence, running.fed, running.round, running.cap = None, 0, None, None
            del self.by_sequence[sequence]
            self.running.remove(running)
            self.through.pop(running, None)

    def _keep(self, running: Work, sequence: Sequence) -> bool:
        """Keep an ended sequence for those that begin alike; whether it was."""
        known = np.array([*running.request.prompt, *running.tokens[:-1]], np.int64)  # the last token never entered
        self._core.truncate(sequence, len(known))
        return self._prefixes.keep(sequence, known, running.kind)

    # -- the way back -------------------------------------------------------------------------------------------------

    def make_room(self) -> None:
        """Nobody can go on for want of memory: what is kept of an ended request goes, or, where nothing is, the request
        that was admitted last waits until one ends."""
        if self._prefixes.drop():
            return
        assert len(self.running) > 1  # one alone fits: see `Engine.submit`
        self.send_back(self.running[-1:])
        self._full = True

    def send_back(self, several: Iterable[Work]) -> None:
        """Let requests that run wait again, before all others: they will be computed anew."""
        for running in reversed([*several]):
            self._stop(running)
            self.waiting.appendleft(running)
        self._full = self._full and bool(self.running)  # where nobody runs, nobody will end
