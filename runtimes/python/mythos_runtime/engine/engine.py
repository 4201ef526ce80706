"""Requests through the loop: every call of a graph packs rows of whatever request and depth, and who comes or goes does
so between two calls.

    engine = Engine(core)
    running = engine.submit(Request([1, 2, 3], max_new_tokens=16))
    while engine.busy:
        for token in engine.tick(): print(token.running, token.id, token.depth)

Which tokens a request gets, and their logits to the last bit, depends on the request alone: not on when it came, on who
ran beside it, on how its prompt was cut, on what was drafted, nor on whether it was sent back for want of memory and
computed again. Only a budget of milliseconds depends on the machine.
"""

from __future__ import annotations

import time
from collections import deque

import numpy as np

from mythos_runtime.batch import integer, number
from mythos_runtime.engine.admission import admit, check_budget
from mythos_runtime.engine.chunks import Answer, Chunk, Leaving
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.depth import budgeted_cap, caps_of, plan_round
from mythos_runtime.engine.pace import Pace, Traffic
from mythos_runtime.engine.pages import OutOfPages, OutOfStates, distinct
from mythos_runtime.engine.prefixes import Prefixes
from mythos_runtime.engine.request import CANCELLED, ERROR, WHOLE, Budget, Request, Round, Running, Token, Usage, Work
from mythos_runtime.engine.sequence import Sequence
from mythos_runtime.engine.speculation import Speculation, Speed
from mythos_runtime.errors import ResultError, RuntimeBundleError, Unavailable
from mythos_runtime.row_ports import ENTER, LEAVE, STEP


class Engine:
    """Many requests on one core. Not for several threads.

    Attributes:
        most_running: requests that run at a time; the others wait, in the order they came.
        chunk: the most tokens of a prompt that enter at a time.
        pace: how long finished positions wait for others to leave with them, and how many loops a call runs.
        budget: of requests that have none of their own.
        prefixes: ended sequences that the next ones may begin with.
        speculation: how tokens are drafted; None: not at all.
    """

    def __init__(
        self,
        core: Core,
        most_running: int = 64,
        chunk: int = 64,
        patience: float | None = None,
        *,
        loops_per_call: int | None = None,
        budget: Budget | None = None,
        prefixes: int = 0,
        speculation: Speculation | None = None,
    ) -> None:
        """
        Args:
            patience: a share of the running requests: so many finished positions are waited for before they leave
                together, since the layers around the loop cost a call about the same for one as for many. None: as long
                as waiting has cost less than one more call of them, by what calls took lately.
            loops_per_call: the most that rows which stay together run in one call; whoever comes waits for its end.
                None: as many as fit `pace.CALL_SECONDS`, by what loops took lately.
            prefixes: how many ended sequences are kept.

        Raises:
            RequestError: a number is none.
        """
        self.core, self.spec = core, core.graphs.spec
        self.chunk = min(chunk, core.graphs.most_rows)
        self.most_running = integer(most_running, "most_running", 1)
        self.budget = budget or Budget()
        check_budget(self.budget, self.spec)
        self.prefixes = Prefixes(prefixes, core.close)
        self.speculation = speculation
        if patience is not None:
            number(patience, "patience")
        if loops_per_call is not None:
            integer(loops_per_call, "loops_per_call", 1)
        self.pace = Pace(patience, loops_per_call, Speed() if speculation is None else speculation.speed)
        self._waiting: deque[Work] = deque()
        self._running: list[Work] = []  # in the order they were admitted
        self._through: dict[Work, None] = {}  # their positions are to leave; in this order
        self._by_sequence: dict[Sequence, Work] = {}
        self._full = False  # one was sent back, and none has ended since
        self._failure: tuple[Exception, list[Work]] | None = None  # of the last tick, and who was there then

    @property
    def speed(self) -> Speed:
        """What calls took lately."""
        return self.pace.speed

    @speed.setter
    def speed(self, speed: Speed) -> None:
        self.pace.speed = speed

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._waiting or self._running)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that run."""
        return len(self._running)

    @property
    def usage(self) -> Usage:
        """What it holds, and what its calls came to."""
        core = self.core
        caches = [cache for cache in (core.around, core.loop) if cache is not None]
        return Usage(
            running=len(self._running),
            waiting=len(self._waiting),
            pages=sum(cache.pages for cache in caches),
            pages_free=sum(cache.free for cache in caches),
            states=core.states.lines,
            states_free=core.states.free,
            prefixes=len(self.prefixes),
            steps=core.steps,
            rows=core.rows,
            late=core.late,
            drafted=self.speculation.drafted if self.speculation else 0,
            accepted=self.speculation.accepted if self.speculation else 0,
        )

    @property
    def pages_running(self) -> int:
        """Pages that running requests hold, each once, whoever shares it. Looks at every table: not for each tick."""
        held = list(self._by_sequence)
        around = distinct(sequence.around for sequence in held)
        return around + distinct(table for sequence in held for table in sequence.loop)

    # -- coming and going ---------------------------------------------------------------------------------------------

    def submit(self, request: Request) -> Running:
        """Queue a request.

        Raises:
            RequestError: it asks for what this model cannot do.
            CapacityError: its tokens do not fit the model, or all the memory.
        """
        running = admit(request, self.core, self.budget)
        self._waiting.append(running)
        return running

    def cancel(self, running: Running) -> None:
        """End a request now; its memory is free at once."""
        assert isinstance(running, Work)
        if running.finished is None:
            self._end(running, CANCELLED)

    def close(self) -> None:
        """End all requests, and give back what was kept."""
        for running in [*self._running, *self._waiting]:
            self.cancel(running)
        self.prefixes.clear()
        self._failure = None

    # -- a tick -------------------------------------------------------------------------------------------------------

    def tick(self) -> list[Token]:
        """Leave, admit, enter, step: at most one call of each graph, of several loops where it is the step's. The
        tokens that were chosen: where a call fails after that, they are told, and the next tick fails, unless one who
        was there then has ended: without whom the call might not fail."""
        if self._failure is not None:
            error, concerned = self._failure
            self._failure = None
            if all(running.finished is None for running in concerned):
                raise error
        tokens = self._leave()
        try:
            self._advance()
        except Exception as error:
            concerned = [*self._running, *self._waiting]
            if not tokens:
                raise
            if concerned:
                self._failure = (error, concerned)
        return tokens

    def _advance(self) -> None:
        """Everything of a tick that brings no tokens."""
        self._admit()
        self._enter()
        started, rows, steps = time.perf_counter(), self.core.rows, self.core.steps
        try:
            done = self.core.step(self._by_sequence, lambda rows: self.pace.most_loops(rows, self._traffic))
        except OutOfPages:
            self._make_room()
            return
        except Unavailable as error:  # of these requests; the others' rows run again in the next tick
            for sequence in error.sequences:
                self._fail(self._by_sequence[sequence], error)
            return
        loops = self.core.steps - steps
        self.speed.saw(STEP, self.core.rows - rows, started, loops)
        self.pace.ran(loops, self._traffic)
        for sequence in done:
            self._through.setdefault(self._by_sequence[sequence])

    def _leave(self) -> list[Token]:
        if not self._through or self.pace.waits(self._traffic):
            return []
        self.pace.left()
        leaving: list[Leaving] = []
        rows = 0
        for running in self._through:
            job = running.sequence.job if running.sequence else None
            assert running.sequence is not None and job is not None
            rows += job.last - job.first + 1
            if rows > self.core.graphs.most_rows:
                break
            early = job.stop < running.limit
            leaving.append(Leaving(running.sequence, running.round is not None and not early, early))
        left = list(self._through)[: len(leaving)]
        for running in left:
            del self._through[running]
        started = time.perf_counter()
        answers = self.core.leave(leaving)
        self.speed.saw(LEAVE, len(leaving), started)
        tokens: list[Token] = []
        for running, each, answer in zip(left, leaving, answers, strict=True):
            tokens += self._answered(running, each.early, answer)
        return tokens

    @property
    def _traffic(self) -> Traffic:
        looping = sum(sequence.job is not None for sequence in self._by_sequence)
        return Traffic(len(self._running), looping, len(self._through))

    def _admit(self) -> None:
        # Who was sent back would take the pages that it gave again, and the others would never be done.
        while self._waiting and len(self._running) < self.most_running and not self._full:
            running = self._waiting[0]
            running.sequence = self._begin(running)  # where that fails it waits still
            self._waiting.popleft()
            self._by_sequence[running.sequence] = running
            self._running.append(running)

    def _begin(self, running: Work) -> Sequence:
        """A sequence for a request: a new one, or what is kept of one that began alike."""
        request = running.request
        found = None if request.depths else self.prefixes.find(np.asarray(request.prompt, np.int64), running.kind)
        if found is not None:
            sequence = self._forked(*found)
            if sequence is not None:
                running.fed = running.reused = sequence.length
                return sequence
        running.reused = 0  # whatever it found before it was sent back
        return self.core.open(running.limit, running.threshold, request.policy, request.state_seed)

    def _forked(self, kept: Sequence, length: int) -> Sequence | None:
        """The first positions of a kept sequence; None where there are no states for those that lag."""
        lag = max(length - kept.complete, 0)
        while True:
            try:
                return self.core.fork(kept, length)
            except OutOfStates:
                if not self.prefixes.drop_lagging(more_than=lag, but=kept):
                    return None

    def _enter(self) -> None:
        left = self.core.graphs.most_rows
        free = self.core.states.free - sum(running.reserved for running in self._running)
        chunks: list[tuple[Work, Chunk]] = []
        idle = [running for running in self._running if running.sequence is not None and running.sequence.job is None]
        for running in sorted(idle, key=lambda running: running.left):  # a token before a prompt
            sequence = running.sequence
            assert sequence is not None
            if not left or not running.left:
                continue
            reserved = running.reserved
            chunk = self._chunk(running, sequence, min(self.chunk, left, self.core.states.lines), free)
            chunks.append((running, chunk))
            left -= len(chunk.ids)
            if not reserved:
                free -= max(running.reserved, len(chunk.ids))
        if chunks and not self._entered(chunks) and not any(sequence.job for sequence in self._by_sequence):
            self._make_room()

    def _entered(self, chunks: list[tuple[Work, Chunk]]) -> bool:
        """Enter as many as there is room for; whether any was."""
        while chunks:
            started = time.perf_counter()
            try:
                self.core.enter([chunk for _, chunk in chunks])
            except OutOfStates:
                running, chunk = chunks.pop()
                if self.prefixes.drop_lagging(more_than=chunk.sequence.lag):
                    chunks.append((running, chunk))
                    continue
                room = self.core.states.free - sum(len(other.ids) for _, other in chunks)
                if room > 0:  # for a part of the longest
                    chunks.append((running, self._chunk(running, chunk.sequence, room, 0)))
                elif running.round is None or not running.round.drafts:
                    # It waits. What it lags runs meanwhile, which frees states.
                    self.core.repay(chunk.sequence, at_least=1)
            except OutOfPages:
                if not self.prefixes.drop():
                    chunks.pop()  # the longest waits
            else:
                self.speed.saw(ENTER, sum(len(chunk.ids) for _, chunk in chunks), started)
                for running, chunk in chunks:
                    running.fed += len(chunk.ids)
                    drafts = running.round
                    if drafts is not None and drafts.drafts and chunk.depths is None:
                        self.core.resume(chunk.sequence, drafts.first)
                return True
        return False

    def _chunk(self, running: Work, sequence: Sequence, most: int, free: int) -> Chunk:
        """What enters next of a request: at most so many tokens; where a round begins, it has so many states."""
        if running.decoding and running.round is None:
            running.cap = budgeted_cap(running, self.speed, len(self._running))
            room = min(self.core.graphs.most_rows, free)  # a round that has begun does not repay
            running.round = plan_round(running, self.speculation, len(self._running), max(room - 1, 0))
        drafts = running.round
        ids = running.next(most)
        answers = len(ids) == running.left
        depths = None
        if drafts is not None and len(drafts.drafts) < drafts.length:
            depths = drafts.depth
        caps, forced = caps_of(running, sequence.length, len(ids))
        return Chunk(sequence, ids, answers, caps, forced, depths)

    # -- answers ------------------------------------------------------------------------------------------------------

    def _answered(self, running: Work, early: bool, answer: Answer) -> list[Token]:
        """The tokens that an answer leads to: of drafts, all that were right, and the one behind them."""
        assert running.sequence is not None
        if running.left:  # a piece of a prompt
            self.core.repay(running.sequence)
            return []
        drafts = running.round
        if drafts is None:
            token = self._choose(running, answer.logits, int(answer.depth))
            if self.speculation is not None and token is not None:
                self.speculation.went(token.depth)
            if running.sequence is not None:
                self.core.repay(running.sequence)
            return [] if token is None else [token]
        if early:
            try:
                drafts.drafts.append(drafts.sampler.choose(answer.logits))
            except ResultError as error:
                self._fail(running, error)
            return []
        return self._verified(running, drafts, answer)

    def _verified(self, running: Work, drafts: Round, answer: Answer) -> list[Token]:
        """The tokens of a round: each draft was right if it is what its position's token turns out to be."""
        running.round = None
        tokens: list[Token] = []
        right = 0
        for row, logits in enumerate(answer.logits):
            token = self._choose(running, logits, int(answer.depth[row]))
            if token is None:
                return tokens
            tokens.append(token)
            if running.finished is not None or row == len(drafts.drafts) or token.id != drafts.drafts[row]:
                break
            right += 1
        assert self.speculation is not None
        self.speculation.saw(drafts.depth, len(drafts.drafts), right, int(answer.depth[: right + 1].max()))
        for token in tokens:
            self.speculation.went(token.depth)
        if running.sequence is not None:
            self.core.truncate(running.sequence, drafts.first + right + 1)
            running.fed = running.sequence.length
            self.core.repay(running.sequence)
        return tokens

    def _choose(self, running: Work, logits: np.ndarray, depth: int) -> Token | None:
        """The next token of a request."""
        try:
            token = running.add(running.sampler.choose(logits), depth, logits)
        except ResultError as error:  # of this request alone
            self._fail(running, error)
            return None
        reason = running.ends()
        if reason is not None:
            self._end(running, reason)
        return token

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _fail(self, running: Work, error: RuntimeBundleError) -> None:
        running.error = error
        self._end(running, ERROR)

    def _end(self, running: Work, reason: str) -> None:
        running.finished = reason
        if running.sequence is not None:
            self._stop(running, keep=reason in WHOLE)
            self._full = False
        else:
            self._waiting.remove(running)

    def _stop(self, running: Work, keep: bool = False) -> None:
        sequence = running.sequence
        assert sequence is not None
        if not keep or sequence.capped or not self._keep(running, sequence):
            self.core.close(sequence)
        running.sequence, running.fed, running.round = None, 0, None
        del self._by_sequence[sequence]
        self._running.remove(running)
        self._through.pop(running, None)

    def _keep(self, running: Work, sequence: Sequence) -> bool:
        """Keep an ended sequence for those that begin alike; whether it was."""
        known = np.array([*running.request.prompt, *running.tokens[:-1]], np.int64)  # the last token never entered
        self.core.truncate(sequence, len(known))
        return self.prefixes.keep(sequence, known, running.kind)

    def _make_room(self) -> None:
        """Nobody can go on for want of memory: what is kept of an ended request goes, or, where nothing is, the request
        that was admitted last waits until one ends, and will be computed anew."""
        if self.prefixes.drop():
            return
        assert len(self._running) > 1  # one alone fits: see `submit`
        last = self._running[-1]
        self._stop(last)
        self._waiting.appendleft(last)
        self._full = True
