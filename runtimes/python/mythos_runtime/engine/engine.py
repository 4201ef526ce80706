"""Requests through the loop: every call of a graph packs rows of whatever request and depth, and who comes or goes does
so between two calls.

    engine = Engine(core)
    running = engine.submit(Request([1, 2, 3], max_new_tokens=16))
    while engine.busy:
        for token in engine.tick(): print(token.running, token.id, token.depth)

Which tokens a request gets, and their logits to the last bit, hang on the request alone: not on when it came, on who
ran beside it, on how its prompt was cut, nor on whether it was sent back for want of memory and computed again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Several
from dataclasses import dataclass, field

import numpy as np

from mythos_runtime.batch import integer, split_prompts
from mythos_runtime.engine.core import Answer, Chunk, Core
from mythos_runtime.engine.pages import OutOfPages
from mythos_runtime.engine.sequence import Sequence
from mythos_runtime.errors import CapacityError, ResultError
from mythos_runtime.row_ports import MOST_LOOPS, PAGE
from mythos_runtime.sampling import Sampler, SamplingOptions

EOS, STOP, LENGTH, CANCELLED, ERROR = "eos", "stop", "length", "cancelled", "error"


@dataclass(frozen=True)
class Request:
    """What somebody wants to be generated.

    Attributes:
        prompt: ids, one or more.
        max_loops, halt_threshold: of its positions; default: as trained.
        whole: run every loop of every position.
        eos: ids that end it. stop: sequences of ids that end it. Both stay in the result.
        row: which of a batch's random numbers it draws (`mythos_runtime.sampling`).
        state_seed: what its first states are drawn with, where the model draws them.
    """

    prompt: Several[int]
    max_new_tokens: int
    max_loops: int | None = None
    halt_threshold: float | None = None
    whole: bool = False
    sampling: SamplingOptions = SamplingOptions()
    eos: frozenset[int] = frozenset()
    stop: tuple[tuple[int, ...], ...] = ()
    row: int = 0
    state_seed: int = 0


@dataclass(eq=False)
class Running:
    """A request on its way.

    Attributes:
        limit, threshold: the request's, or as trained.
        tokens, depth: generated so far, and the loops of the positions behind the choices.
        finished: why it ended; None while it has not. error: what it ended with, where that is "error".
        sequence: None while it waits.
        fed: of prompt and tokens, how many have entered.
    """

    request: Request
    limit: int
    threshold: float
    sampler: Sampler
    tokens: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    finished: str | None = None
    error: ResultError | None = None
    sequence: Sequence | None = None
    fed: int = 0

    @property
    def known(self) -> list[int]:
        """Prompt and tokens."""
        return [*self.request.prompt, *self.tokens]

    @property
    def left(self) -> int:
        """Known tokens that have not entered."""
        return len(self.request.prompt) + len(self.tokens) - self.fed


@dataclass(frozen=True)
class Token:
    """A token of a request, and what it was chosen from."""

    running: Running
    id: int
    depth: int
    logits: np.ndarray


class Engine:
    """Many requests on one core. Not for several threads.

    Attributes:
        most_running: requests that run at a time; the others wait, in the order they came.
        chunk: the most tokens of a prompt that enter at a time.
        patience: a share of the running requests: so many finished positions are waited for before they leave together,
            since the layers around the loop cost a call about the same for one as for a few.
    """

    def __init__(self, core: Core, most_running: int = 64, chunk: int = 64, patience: float = 0.125) -> None:
        self.core, self.spec = core, core.graphs.spec
        self.most_running, self.chunk, self.patience = most_running, min(chunk, core.graphs.most_rows), patience
        self._waiting: deque[Running] = deque()
        self._running: list[Running] = []  # in the order they were admitted
        self._through: list[Running] = []  # their positions are to leave
        self._full = False  # one was sent back, and none has ended since

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._waiting or self._running)

    def submit(self, request: Request) -> Running:
        """Queue a request.

        Raises:
            RequestError: it asks for what this model cannot do.
            CapacityError: its tokens do not fit the model, or all the memory.
        """
        spec = self.spec
        (prompt,) = split_prompts([request.prompt], spec.vocab_size)
        integer(request.max_new_tokens, "max_new_tokens", 1)
        limit = spec.trained_loops if request.max_loops is None else request.max_loops
        integer(limit, "max_loops", 0, MOST_LOOPS)
        self._check_room(len(prompt) + request.max_new_tokens - 1, limit)
        knob = spec.exit.knob("halt_threshold")
        usual = 0.0 if knob is None else knob.default
        threshold = usual if request.halt_threshold is None else request.halt_threshold
        running = Running(request, limit, threshold, Sampler(request.sampling, request.row, spec.vocab_size, prompt))
        self._waiting.append(running)
        return running

    def _check_room(self, positions: int, limit: int) -> None:
        core, blocks = self.core, -(-positions // PAGE)
        if positions > self.spec.max_seq_len:
            raise CapacityError(
                f"a request of {positions} positions exceeds the {self.spec.max_seq_len} that this model takes"
            )
        fits = core.around is None or blocks <= core.around.pages
        if not fits or blocks * limit > core.loop.pages or positions > core.states.lines:
            raise CapacityError(
                f"a request of {positions} positions at {limit} loops does not fit the engine's memory by itself: give "
                "it more, or ask for less"
            )

    def cancel(self, running: Running) -> None:
        """End a request now; its memory is free at once."""
        if running.finished is None:
            self._end(running, CANCELLED)

    def tick(self) -> list[Token]:
        """Leave, admit, enter, step: at most one call of each graph. The tokens that were chosen."""
        tokens = self._leave()
        self._admit()
        self._enter()
        try:
            done = self.core.step()
        except OutOfPages:
            self._send_back()
            return tokens
        by_sequence = {running.sequence: running for running in self._running}
        self._through += [by_sequence[each] for each in done if by_sequence[each] not in self._through]
        return tokens

    # -- the stages of a tick -----------------------------------------------------------------------------------------

    def _leave(self) -> list[Token]:
        looping = sum(running.sequence is not None and running.sequence.job is not None for running in self._running)
        enough = max(1, round(self.patience * len(self._running)))
        if not self._through or (len(self._through) < enough and len(self._through) < looping):
            return []
        leaving, rows = [], 0
        for running in self._through:
            job = running.sequence.job if running.sequence else None
            assert job is not None
            rows += job.last - job.first + 1
            if rows > self.core.graphs.most_rows:
                break
            leaving.append(running)
        del self._through[: len(leaving)]
        answers = self.core.leave([running.sequence for running in leaving if running.sequence])
        chosen = [self._choose(running, answer) for running, answer in zip(leaving, answers, strict=True)]
        return [token for token in chosen if token is not None]

    def _choose(self, running: Running, answer: Answer) -> Token | None:
        """The next token, where the last known position was answered."""
        if running.left:
            return None
        request, tokens = running.request, running.tokens
        try:
            token = Token(running, running.sampler.choose(answer.logits), int(answer.depth), answer.logits)
        except ResultError as error:  # of this request alone
            running.error = error
            self._end(running, ERROR)
            return None
        tokens.append(token.id)
        running.depth.append(token.depth)
        if token.id in request.eos:
            self._end(running, EOS)
        elif any(tuple(tokens[-len(ids) :]) == ids for ids in request.stop):
            self._end(running, STOP)
        elif len(tokens) == request.max_new_tokens:
            self._end(running, LENGTH)
        return token

    def _admit(self) -> None:
        # Who was sent back would take the pages that it gave again, and the others would never be done.
        while self._waiting and len(self._running) < self.most_running and not self._full:
            running = self._waiting.popleft()
            request = running.request
            running.sequence = self.core.open(running.limit, running.threshold, request.whole, request.state_seed)
            self._running.append(running)

    def _enter(self) -> None:
        left = self.core.graphs.most_rows
        chunks: list[tuple[Running, Chunk]] = []
        for running in sorted(self._running, key=lambda running: running.left):  # a token before a prompt
            sequence = running.sequence
            assert sequence is not None
            if not left or not running.left or sequence.job is not None:
                continue
            ids = np.array(running.known[running.fed : running.fed + min(self.chunk, left)], np.int64)
            chunks.append((running, Chunk(sequence, ids, answers=len(ids) == running.left)))
            left -= len(ids)
        while chunks:
            try:
                self.core.enter([chunk for _, chunk in chunks])
            except OutOfPages:
                chunks.pop()  # the longest waits, unless it is alone
                if chunks or any(running.sequence and running.sequence.job for running in self._running):
                    continue
                self._send_back()
                return
            for running, chunk in chunks:
                running.fed += len(chunk.ids)
            return

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _end(self, running: Running, reason: str) -> None:
        running.finished = reason
        if running.sequence is not None:
            self._stop(running)
            self._full = False
        else:
            self._waiting.remove(running)

    def _stop(self, running: Running) -> None:
        assert running.sequence is not None
        self.core.close(running.sequence)
        running.sequence, running.fed = None, 0
        self._running.remove(running)
        if running in self._through:
            self._through.remove(running)

    def _send_back(self) -> None:
        """Make room: the request that was admitted last waits until one ends, and will be computed anew."""
        assert len(self._running) > 1  # one alone fits: see `submit`
        last = self._running[-1]
        self._stop(last)
        self._waiting.appendleft(last)
        self._full = True
