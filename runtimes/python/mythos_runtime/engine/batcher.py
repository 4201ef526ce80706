"""What enters next, packed into one call: tokens that were chosen, drafts, and prompts, a chunk at a time."""

from __future__ import annotations

import time

from mythos_runtime.batch import integer
from mythos_runtime.engine.chunks import Chunk
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.depth import budgeted_cap, caps_of, plan_round
from mythos_runtime.engine.pace import Pace
from mythos_runtime.engine.pages import OutOfPages, OutOfStates
from mythos_runtime.engine.prefixes import Prefixes
from mythos_runtime.engine.queues import Queues
from mythos_runtime.engine.request import Work
from mythos_runtime.engine.sequence import Sequence
from mythos_runtime.engine.speculation import Speculation
from mythos_runtime.row_ports import ENTER


class Batcher:
    """Takes of those that run what has not entered, as much as there is memory for.

    Attributes:
        chunk: the most tokens of a prompt that enter at a time.
    """

    def __init__(
        self,
        core: Core,
        queues: Queues,
        prefixes: Prefixes,
        pace: Pace,
        chunk: int,
        speculation: Speculation | None,
    ) -> None:
        """Raises RequestError where `chunk` is no number of tokens."""
        self.chunk = min(integer(chunk, "chunk", 1), core.graphs.most_rows)
        self._core, self._queues, self._prefixes = core, queues, prefixes
        self._pace, self._speculation = pace, speculation

    def enter(self) -> None:
        """One call, of whoever has no rows on their way through the loop."""
        core, queues = self._core, self._queues
        left = core.graphs.most_rows
        free = core.states.free - sum(running.reserved for running in queues.running)
        chunks: list[tuple[Work, Chunk]] = []
        idle = [running for running in queues.running if running.sequence is not None and running.sequence.job is None]
        for running in sorted(idle, key=lambda running: running.left):  # a token before a prompt
            sequence = running.sequence
            assert sequence is not None
            if not left or not running.left:
                continue
            reserved = running.reserved
            chunk = self._chunk(running, sequence, min(self.chunk, left, core.states.lines), free)
            chunks.append((running, chunk))
            left -= len(chunk.ids)
            if not reserved:
                free -= max(running.reserved, len(chunk.ids))
        if chunks and not self._entered(chunks) and not queues.traffic.looping:
            queues.make_room()

    def _entered(self, chunks: list[tuple[Work, Chunk]]) -> bool:
        """Enter as many as there is room for; whether any was."""
        core = self._core
        while chunks:
            started = time.perf_counter()
            try:
                core.enter([chunk for _, chunk in chunks])
            except OutOfStates:
                running, chunk = chunks.pop()
                if self._prefixes.drop_lagging(more_than=chunk.sequence.lag):
                    chunks.append((running, chunk))
                    continue
                room = core.states.free - sum(len(other.ids) for _, other in chunks)
                if room > 0:  # for a part of the longest
                    chunks.append((running, self._chunk(running, chunk.sequence, room, 0)))
                elif running.round is None or not running.round.drafts:
                    # It waits. What it lags runs meanwhile, which frees states.
                    core.repay(chunk.sequence, at_least=1)
            except OutOfPages:
                if not self._prefixes.drop():
                    chunks.pop()  # the longest waits
            else:
                self._pace.speed.saw(ENTER, sum(len(chunk.ids) for _, chunk in chunks), started)
                for running, chunk in chunks:
                    running.fed += len(chunk.ids)
                    drafts = running.round
                    if drafts is not None and drafts.drafts and chunk.depths is None:
                        core.resume(chunk.sequence, drafts.first)
                return True
        return False

    def _chunk(self, running: Work, sequence: Sequence, most: int, free: int) -> Chunk:
        """What enters next of a request: at most so many tokens; where a round begins, it has so many states."""
        if running.decoding and running.round is None:
            sharing = len(self._queues.running)
            running.cap = budgeted_cap(running, self._pace.speed, sharing)
            room = min(self._core.graphs.most_rows, free)  # a round that has begun does not repay
            running.round = plan_round(running, self._speculation, sharing, max(room - 1, 0))
        drafts = running.round
        ids = running.next(most)
        answers = len(ids) == running.left
        depths = None
        if drafts is not None and len(drafts.drafts) < drafts.length:
            depths = drafts.depth
        caps, forced = caps_of(running, sequence.length, len(ids))
        return Chunk(sequence, ids, answers, caps, forced, depths)
