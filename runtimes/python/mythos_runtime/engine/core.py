"""Exact lazy depth: sequences whose rows are packed, whatever depth they are at, and computed no deeper than needed.

    sequence = core.open(limit=16, threshold=0.99)
    core.enter([Chunk(sequence, ids)])
    while not (done := core.step()): ...
    (answer,) = core.leave(done)                    # logits [V] of the chunk's last position

A chunk enters (the layers before the loop), its rows are stepped until all have halted, and it leaves (the layers
behind the loop). A position that has halted lags at the depths it did not run, until a later one needs its entries
there; then it runs them, as it would have. So nothing is approximated, and a row computes the same bits in any company.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass

import numpy as np

from mythos_runtime import noise
from mythos_runtime.engine.graphs import RowGraphs
from mythos_runtime.engine.memory import Memory
from mythos_runtime.engine.pages import OutOfPages
from mythos_runtime.engine.scheduler import Scheduler, due
from mythos_runtime.engine.sequence import Job, Sequence, Span
from mythos_runtime.engine.states import DEPTH


@dataclass(frozen=True)
class Chunk:
    """New tokens of a sequence, int64 [n]. Without `answers` nobody wants their logits: they are run when a later
    position needs them (with layers behind the loop, which need every position's answer, at once)."""

    sequence: Sequence
    ids: np.ndarray
    answers: bool = True

    @property
    def first(self) -> int:
        return self.sequence.length


@dataclass(frozen=True)
class Answer:
    """What a chunk's positions came to: logits [V] and depth of the last one, or [n, V] and [n] of all."""

    logits: np.ndarray
    depth: np.ndarray


class Core:
    """Sequences, their caches and the state of what lags.

    Attributes:
        around, loop: the caches around the loop (None where the model has no layers there) and per depth.
        states, scheduler: see there.
        trailing: whether layers behind the loop keep entries, so that every position has to be answered.
        max_lag: positions that may lag before they are made to run all depths, in one chunk a depth: a bound on what a
            hard token has to wait for. None: no bound.
        steps, rows, late: calls of the step graph, rows of them, and rows that had halted before.
    """

    def __init__(self, graphs: RowGraphs, memory: Memory, max_lag: int | None = None) -> None:
        self.graphs, self.max_lag = graphs, max_lag
        self.around, self.loop, self.states = memory.around, memory.loop, memory.states
        self.trailing = any(group.slots > group.before for group in graphs.spec.caches if not group.per_loop)
        self.scheduler = Scheduler(graphs.most_rows)
        self.sequences: list[Sequence] = []
        self.steps = self.rows = self.late = 0

    # -- sequences ----------------------------------------------------------------------------------------------------

    def open(self, limit: int, threshold: float, whole: bool = False, state_seed: int = 0) -> Sequence:
        """A sequence of at most `limit` loops a position; `whole`: every position runs all of them. A model that draws
        its first state draws it with `state_seed`."""
        sequence = Sequence(limit, threshold, whole, state_seed)
        self.sequences.append(sequence)
        return sequence

    def close(self, sequence: Sequence) -> None:
        """Give back everything that the sequence holds; what lags is dropped, never run."""
        self._cut(sequence, 0)
        self.sequences.remove(sequence)
        self.scheduler.forget(sequence)

    def fork(self, sequence: Sequence) -> Sequence:
        """A second sequence with the same entries, on the same pages. Raises OutOfPages."""
        lines = self.states.copy(sequence.lines)
        twin = self.open(sequence.limit, sequence.threshold, sequence.whole, sequence.state_seed)
        twin.length, twin.answered, twin.filled = sequence.length, sequence.answered, list(sequence.filled)
        twin.job = None if sequence.job is None else Job(**vars(sequence.job))
        twin.lines = lines
        if self.around is not None:
            twin.around = self.around.fork(sequence.around)
        twin.loop = [self.loop.fork(table) for table in sequence.loop]
        return twin

    def truncate(self, sequence: Sequence, length: int) -> None:
        """Forget the positions from `length` on. Only between chunks."""
        assert sequence.job is None
        self._cut(sequence, length)

    def _cut(self, sequence: Sequence, length: int) -> None:
        sequence.job = None
        keep = max(len(sequence.lines) - max(sequence.length - length, 0), 0)
        self.states.end(sequence.lines[keep:].tolist())
        sequence.lines = sequence.lines[:keep]
        sequence.length = min(sequence.length, length)
        sequence.answered = min(sequence.answered, length)
        sequence.filled = [min(filled, length) for filled in sequence.filled]
        if self.around is not None:
            self.around.truncate(sequence.around, length)
        for table in sequence.loop:
            self.loop.truncate(table, length)

    # -- the three graphs ---------------------------------------------------------------------------------------------

    def enter(self, chunks: Several[Chunk]) -> None:
        """Take new tokens in, together at most `graphs.most_rows`, and give their sequences, which have none, a job.

        Raises:
            OutOfPages: nothing was computed.
        """
        spans = [Span(chunk.sequence, 0, chunk.first, chunk.first + len(chunk.ids) - 1) for chunk in chunks]
        if sum(span.rows for span in spans) > self.states.free:
            raise OutOfPages
        if self.around is not None:
            for span in spans:
                self.around.extend(span.sequence.around, span.first, span.last)
        tables = [span.sequence.around for span in spans]
        ids = np.concatenate([chunk.ids for chunk in chunks])
        encoded = self.graphs.enter(ids, spans, tables)
        lines, at = self.states.begin(ids, encoded, self._initial(spans)), 0
        for span, chunk in zip(spans, chunks, strict=True):
            sequence = span.sequence
            sequence.lines = np.concatenate([sequence.lines, lines[at : at + span.rows]])
            at += span.rows
            sequence.length = span.last + 1
            if chunk.answers or self.trailing:
                sequence.job = Job(span.first, span.last, whole=sequence.whole)

    def _initial(self, spans: list[Span]) -> np.ndarray | None:
        """The state before the first loop of new rows [r, S], where the model draws it."""
        tensor = self.graphs.spec.initial
        if tensor is None:
            return None
        positions = [np.arange(span.first, span.last + 1)[None] for span in spans]
        drawn = [
            noise.initial_state(tensor, row, span.sequence.state_seed)[0]
            for row, span in zip(positions, spans, strict=True)
        ]
        return np.concatenate(drawn)

    def step(self) -> list[Sequence]:
        """One call of the step graph over rows that are due; the sequences whose jobs are through, to leave.

        Raises:
            OutOfPages: no row that is due could run.
        """
        waiting, through = [], []
        for sequence in self.sequences:
            if sequence.job is not None:
                span = due(sequence, self.states.halted)
                if span is None:
                    through.append(sequence)
                else:
                    waiting.append(span)
        if waiting:
            self._run(self._with_pages(self.scheduler.plan(waiting)))
            through += [span.sequence for span in waiting if due(span.sequence, self.states.halted) is None]
        answering = []
        for sequence in through:
            assert sequence.job is not None
            if sequence.job.answers:
                answering.append(sequence)
            else:
                sequence.job = None
                self._release(sequence)
        return answering

    def leave(self, sequences: Several[Sequence], every: bool = False) -> list[Answer]:
        """Answer the chunks whose jobs are through: each one's last position, or every one.

        Raises:
            OutOfPages: a shared page could not be copied; nothing was computed.
        """
        spans = []
        for sequence in sequences:
            job = sequence.job
            assert job is not None
            first = job.first if every or self.trailing else job.last
            spans.append(Span(sequence, 0, first, job.last))
        ends = np.cumsum([span.rows for span in spans])
        pick = np.arange(ends[-1]) if every else ends - 1
        lines = np.concatenate([span.sequence.states(span.first, span.last) for span in spans])
        logits = self.graphs.leave(self.states, lines, pick, spans, [span.sequence.around for span in spans])
        depth = self.states.arrays[DEPTH][lines[pick]]
        for span in spans:
            span.sequence.answered = span.last + 1
            span.sequence.job = None
            self._release(span.sequence)
            self._repay(span.sequence)
        if every:
            return [Answer(*each) for each in zip(np.split(logits, ends[:-1]), np.split(depth, ends[:-1]), strict=True)]
        return [Answer(*each) for each in zip(logits, depth, strict=True)]

    def _with_pages(self, spans: list[Span]) -> list[Span]:
        """The spans that there are pages for, which they get."""
        ready = []
        for span in spans:
            try:
                self.loop.extend(span.sequence.loop[span.depth], span.first, span.last)
            except OutOfPages:
                continue
            ready.append(span)
        if not ready:
            raise OutOfPages
        return ready

    def _run(self, spans: list[Span]) -> None:
        lines = np.concatenate([span.sequence.states(span.first, span.last) for span in spans])
        self.steps, self.rows = self.steps + 1, self.rows + len(lines)
        self.late += int(np.count_nonzero(self.states.halted[lines]))
        self.graphs.step(self.states, lines, spans, [span.sequence.loop[span.depth] for span in spans])
        for span in spans:
            span.sequence.filled[span.depth] = span.last + 1

    def _release(self, sequence: Sequence) -> None:
        """The states of positions that have run every depth and are answered are not needed any more."""
        done = min(sequence.complete, sequence.length) - (sequence.length - len(sequence.lines))
        if done > 0:
            self.states.end(sequence.lines[:done].tolist())
            sequence.lines = sequence.lines[done:]

    def _repay(self, sequence: Sequence) -> None:
        if self.max_lag is not None and sequence.lag >= self.max_lag:
            sequence.job = Job(sequence.complete, sequence.length - 1, whole=True, answers=False)
