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

from mythos_runtime.batch import integer, number
from mythos_runtime.engine.admission import admit, check_budget
from mythos_runtime.engine.answers import Answers
from mythos_runtime.engine.batcher import Batcher
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.pace import Pace
from mythos_runtime.engine.pages import OutOfPages, distinct
from mythos_runtime.engine.prefixes import Prefixes
from mythos_runtime.engine.queues import Queues
from mythos_runtime.engine.request import CANCELLED, Budget, Request, Running, Token, Usage, Work
from mythos_runtime.engine.speculation import Speculation, Speed
from mythos_runtime.errors import Unavailable
from mythos_runtime.row_ports import STEP


class Engine:
    """Many requests on one core. Not for several threads.

    Attributes:
        budget: of requests that have none of their own.
        prefixes: ended sequences that the next ones may begin with.
        speculation: how tokens are drafted; None: not at all.
        pace: how long finished positions wait for others to leave with them, and how many loops a call runs.
        queues: who waits, who runs, and who is to leave.
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
            most_running: requests that run at a time; the others wait, in the order they came.
            chunk: the most tokens of a prompt that enter at a time.
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
        self.prefixes = Prefixes(integer(prefixes, "prefixes", 0), core.close)
        self.queues = Queues(core, self.prefixes, most_running)
        self.budget = budget or Budget()
        check_budget(self.budget, self.spec)
        self.speculation = speculation
        if patience is not None:
            number(patience, "patience")
        if loops_per_call is not None:
            integer(loops_per_call, "loops_per_call", 1)
        self.pace = Pace(patience, loops_per_call, Speed() if speculation is None else speculation.speed)
        self._batcher = Batcher(core, self.queues, self.prefixes, self.pace, chunk, speculation)
        self._answers = Answers(core, self.queues, self.pace, speculation)
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
        return bool(self.queues.waiting or self.queues.running)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self.queues.waiting)

    @property
    def running(self) -> int:
        """Requests that run."""
        return len(self.queues.running)

    @property
    def usage(self) -> Usage:
        """What it holds, and what its calls came to."""
        core = self.core
        caches = [cache for cache in (core.around, core.loop) if cache is not None]
        return Usage(
            running=len(self.queues.running),
            waiting=len(self.queues.waiting),
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
        held = list(self.queues.by_sequence)
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
        self.queues.waiting.append(running)
        return running

    def cancel(self, running: Running) -> None:
        """End a request now; its memory is free at once."""
        assert isinstance(running, Work)
        if running.finished is None:
            self.queues.end(running, CANCELLED)

    def close(self) -> None:
        """End all requests, and give back what was kept."""
        for running in [*self.queues.running, *self.queues.waiting]:
            self.cancel(running)
        self.prefixes.clear()
        self._failure = None

    # -- a tick -------------------------------------------------------------------------------------------------------

    def tick(self) -> list[Token]:
        """Leave, admit, enter, step: at most one call of each graph, of several loops where it is the step's. The
        tokens that were chosen: where anything fails after that, they are told, and the next tick fails, unless one who
        was there then has ended: without whom it might not fail."""
        if self._failure is not None:
            error, concerned = self._failure
            self._failure = None
            if all(running.finished is None for running in concerned):
                raise error
        tokens: list[Token] = []
        try:
            self._answers.leave(tokens)
            self.queues.admit()
            self._batcher.enter()
            self._step()
        except Exception as error:
            concerned = [*self.queues.running, *self.queues.waiting]
            if not tokens:
                raise
            if concerned:
                self._failure = (error, concerned)
        return tokens

    def _step(self) -> None:
        core, queues, pace = self.core, self.queues, self.pace
        started, rows, steps = time.perf_counter(), core.rows, core.steps
        try:
            done = core.step(queues.by_sequence, lambda rows: pace.most_loops(rows, queues.traffic))
        except OutOfPages:
            queues.make_room()
            return
        except Unavailable as error:  # of these requests; the others' rows run again in the next tick
            for sequence in error.sequences:
                queues.fail(queues.by_sequence[sequence], error)
            return
        loops = core.steps - steps
        pace.speed.saw(STEP, core.rows - rows, started, loops)
        pace.ran(loops, queues.traffic)
        for sequence in done:
            queues.passed(sequence)
