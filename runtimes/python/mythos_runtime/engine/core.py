"""Exact lazy depth: sequences whose rows are packed, whatever depth they are at, and computed no deeper than needed.

    sequence = core.open(limit=16, threshold=0.99)
    core.enter([Chunk(sequence, ids)])
    while not (done := core.step([sequence])): ...
    (answer,) = core.leave([Leaving(sequence)])     # logits [V] of the chunk's last position

A chunk enters (the layers before the loop), its rows are stepped until all have halted, and it leaves (the layers
behind the loop). A position that has halted lags at the depths it did not run, until a later one needs its entries
there; then it runs them, as it would have. So nothing is approximated, and a row computes the same bits in any company.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Several
from dataclasses import replace

import numpy as np

from mythos_runtime import noise
from mythos_runtime.batch import integer
from mythos_runtime.engine.chunks import Answer, Chunk, Leaving
from mythos_runtime.engine.graphs import Graphs
from mythos_runtime.engine.memory import Memory, Room
from mythos_runtime.engine.pages import OutOfPages, OutOfStates
from mythos_runtime.engine.scheduler import Scheduler, due, going
from mythos_runtime.engine.sequence import Job, Policy, Sequence, Span, lines_of
from mythos_runtime.row_ports import MOST_LOOPS, PAGE


class Core:
    """Sequences, their caches and the state of what lags.

    Attributes:
        around, loop: the caches around the loop (None where the model has no layers there) and per depth.
        states, scheduler: see there.
        trailing: whether layers behind the loop keep entries, so that every position has to be answered.
        max_lag: positions that may lag before they are made to run all depths, in one chunk a depth: a bound on what a
            hard token has to wait for. None: no bound.
        steps, rows, late: loops of rows, several of which may be one call of a graph; their rows, and those among them
            that had halted before.
    """

    def __init__(self, graphs: Graphs, memory: Memory, max_lag: int | None = None) -> None:
        """Raises RequestError where `max_lag` is no number of positions."""
        if max_lag is not None:
            integer(max_lag, "max_lag", 1)
        self.graphs, self.memory, self.max_lag = graphs, memory, max_lag
        self.around, self.loop, self.states = memory.around, memory.loop, memory.states
        self.trailing = any(group.slots > group.before for group in graphs.spec.caches if not group.per_loop)
        self.scheduler = Scheduler(graphs.most_rows)
        self.sequences: set[Sequence] = set()
        self.steps = self.rows = self.late = 0

    def reserve(self, room: Room) -> None:
        """Have at least so much memory."""
        have = Room(self.around.pages if self.around else room.around, self.loop.pages, self.states.lines)
        if room.around > have.around or room.loop > have.loop or room.lines > have.lines:
            try:
                self.memory.grow(room)
            finally:  # a part of it may have grown before memory ran out
                self.graphs.bind(self.memory)

    # -- sequences ----------------------------------------------------------------------------------------------------

    def open(self, limit: int, threshold: float, policy: Policy = "lazy", state_seed: int = 0) -> Sequence:
        """A sequence of at most `limit` loops a position. A model that draws its first state draws it with
        `state_seed`."""
        sequence = Sequence(limit, threshold, policy, state_seed)
        self.sequences.add(sequence)
        return sequence

    def most_states(self, policy: Policy, chunk: int) -> int | None:
        """The most positions of a sequence that have a state at a time, where it is fed `chunk` at a time, and asked
        to `repay` behind each; None: there is no bound.

        Without layers behind the loop, a prompt's positions wait at the first depth until its last token enters.
        """
        if policy == "full":
            return chunk
        return self.max_lag + chunk if self.trailing and self.max_lag is not None else None

    def close(self, sequence: Sequence) -> None:
        """Give back everything that the sequence holds; what lags is dropped, never run."""
        self._cut(sequence, 0)
        self.sequences.remove(sequence)
        self.scheduler.forget(sequence)

    def fork(self, sequence: Sequence, length: int | None = None) -> Sequence:
        """A second sequence with the same entries, on the same pages, and a copy of each state.

        Args:
            length: of its first positions alone, with nothing to be done; None: all of it.

        Raises:
            OutOfStates: nothing was changed.
        """
        length = sequence.length if length is None else min(length, sequence.length)
        job = sequence.job if length == sequence.length else None
        lines = sequence.lines[: max(length - (sequence.length - len(sequence.lines)), 0)]
        copies = self.states.copy(np.array(lines, np.int64)).tolist()
        twin = self.open(sequence.limit, sequence.threshold, sequence.policy, sequence.state_seed)
        twin.length, twin.answered = length, min(sequence.answered, length)
        twin.filled = [min(filled, length) for filled in sequence.filled]
        twin.job = None if job is None else replace(job, due=None)
        twin.capped, twin.lines = sequence.capped, copies
        if self.around is not None:
            twin.around = self.around.fork(sequence.around, length)
        twin.loop = [self.loop.fork(table, length) for table in sequence.loop]
        return twin

    def truncate(self, sequence: Sequence, length: int) -> None:
        """Forget the positions from `length` on, and what was to be done."""
        self._cut(sequence, length)

    def _cut(self, sequence: Sequence, length: int) -> None:
        sequence.job = None
        keep = max(len(sequence.lines) - max(sequence.length - length, 0), 0)
        self.states.end(sequence.lines[keep:])
        del sequence.lines[keep:]
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
            OutOfStates, OutOfPages: nothing was computed.
        """
        spans = [Span(chunk.sequence, 0, chunk.first, chunk.first + len(chunk.ids) - 1) for chunk in chunks]
        if sum(span.rows for span in spans) > self.states.free:
            raise OutOfStates
        if self.around is not None:
            for span in spans:
                self.around.extend(span.sequence.around, span.first, span.last)
        ids = chunks[0].ids if len(chunks) == 1 else np.concatenate([chunk.ids for chunk in chunks])
        tables = [span.sequence.around for span in spans]
        lines = self.graphs.enter(self.states, ids, self._initial(chunks), spans, tables)
        rows, numbers, at = [span.rows for span in spans], lines.tolist(), 0
        threshold = np.repeat([span.sequence.threshold for span in spans], rows)
        cap = np.repeat([span.sequence.limit for span in spans], rows)
        for chunk, span, count in zip(chunks, spans, rows, strict=True):
            sequence, mine = span.sequence, slice(at, at + count)
            at += count
            sequence.lines += numbers[mine]
            sequence.length = span.last + 1
            if chunk.forced is not None:
                threshold[mine][chunk.forced] = np.nan
            if chunk.caps is not None:
                cap[mine], sequence.capped = chunk.caps, True
            answers, whole = chunk.answers or self.trailing, sequence.policy == "full"
            if answers or whole:
                stop = sequence.limit if chunk.depths is None else chunk.depths
                sequence.job = Job(span.first, span.last, stop, whole=whole, answers=answers)
            elif not sequence.limit:
                self._release(sequence)  # no loop will ask for them
        self.states.threshold[lines], self.states.cap[lines] = threshold, cap

    def _initial(self, chunks: Several[Chunk]) -> np.ndarray | None:
        """The state before the first loop of new rows [r, S], where the model draws it."""
        tensor = self.graphs.spec.initial
        if tensor is None:
            return None
        drawn = []
        for chunk in chunks:
            positions = np.arange(chunk.first, chunk.first + len(chunk.ids))
            seed = chunk.sequence.state_seed
            drawn.append(
                noise.initial_state(tensor, positions[None], seed)[0] if chunk.initial is None else chunk.initial
            )
        return np.concatenate(drawn)

    def step(
        self, sequences: Iterable[Sequence], most_loops: Callable[[int], int] = lambda rows: MOST_LOOPS
    ) -> list[Sequence]:
        """One call of the step, or of the step in a Loop, over rows that are due of these; those whose jobs are
        through, to leave.

        Args:
            most_loops: by the number of rows, the loops that the call may run where the same rows are due loop after
                loop. What comes of it is what as many calls would give, to the bit.

        Raises:
            OutOfPages: no row that is due could run.
        """
        halted = self.states.halted
        waiting, through = [], []
        for sequence in sequences:
            job = sequence.job
            if job is not None:
                job.due = job.due or due(sequence, halted)
                if job.due is None:
                    through.append(sequence)
                else:
                    waiting.append(job.due)
        if waiting:
            planned = self._with_pages(self.scheduler.plan(waiting))
            self._run(planned, self._together(planned, waiting, most_loops))
            for span in planned:
                assert span.sequence.job is not None
                span.sequence.job.due = due(span.sequence, halted)
            through += [span.sequence for span in waiting if span.sequence.job and span.sequence.job.due is None]
        answering = []
        for sequence in through:
            assert sequence.job is not None
            if sequence.job.answers:
                answering.append(sequence)
            else:
                sequence.job = None
                self._release(sequence)
        return answering

    def run(self, sequences: Several[Sequence]) -> None:
        """Step until the jobs of all are through."""
        while sum(sequence.job is not None for sequence in sequences) > len(self.step(sequences)):
            continue

    def leave(self, leaving: Several[Leaving]) -> list[Answer]:
        """Answer chunks whose jobs are through."""
        spans = []
        for each in leaving:
            job = each.sequence.job
            assert job is not None
            whole = each.every or (self.trailing and not each.early)
            spans.append(Span(each.sequence, 0, job.first if whole else job.last, job.last))
        answers = self._answers(leaving, spans)
        for each, span in zip(leaving, spans, strict=True):
            each.sequence.job = None
            if not each.early:
                each.sequence.answered = span.last + 1
                self._release(each.sequence)
        return answers

    def resume(self, sequence: Sequence, first: int) -> None:
        """Run the positions from `first` on to where they halt: drafts, as one chunk."""
        sequence.job = Job(first, sequence.length - 1, sequence.limit, whole=sequence.policy == "full")

    def _answers(self, leaving: Several[Leaving], spans: list[Span]) -> list[Answer]:
        lines = lines_of(spans)
        picks, at = [], 0
        early = np.repeat([each.early for each in leaving], [span.rows for span in spans])
        for each, span in zip(leaving, spans, strict=True):
            end = at + span.rows
            picks.append(range(at if each.every else end - 1, end))
            at = end
        pick = np.array([row for rows in picks for row in rows])
        tables = [span.sequence.around for span in spans]
        logits = self.graphs.leave(self.states, lines, early, pick, spans, tables)
        depth = self.states.depths(lines[pick])
        answers, at = [], 0
        for each, rows in zip(leaving, picks, strict=True):
            mine = slice(at, at + len(rows)) if each.every else at
            answers.append(Answer(logits[mine], depth[mine]))
            at += len(rows)
        return answers

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

    def _together(self, spans: list[Span], waiting: list[Span], most_loops: Callable[[int], int]) -> int:
        """For how many loops these spans of those that wait stay as they are, if none of their last rows halts: until
        an earlier position is due, too, or a job ends, or others wait."""
        if self.graphs.most_loops == 1:
            return 1
        rows = sum(span.rows for span in spans)
        if rows < sum(span.rows for span in waiting):
            return 1
        most = min(most_loops(rows), self.graphs.most_loops)
        for sequence, depth, first, _ in spans:
            if most == 1 or sequence.policy == "share":
                return 1
            assert sequence.job is not None
            ends = min(depth + most, sequence.job.stop)
            ahead = depth + 1
            while ahead < ends and sequence.filled[ahead] == first:
                ahead += 1
            most = ahead - depth
        return most

    def _run(self, planned: list[Span], loops: int) -> None:
        """These rows, for so many loops, or until other ones are due, or as far as there are pages."""
        spans = planned
        if any(span.sequence.policy == "share" for span in planned):
            spans = [part for span in planned for part in self._shared(span)]
        ran, asked = 1, loops
        if spans:
            loops = self._deeper_pages(planned, loops)
            lines = lines_of(spans)
            tables = [[span.sequence.loop[span.depth + ahead] for span in spans] for ahead in range(loops)]
            ran = self.graphs.step(self.states, lines, spans, tables)
            ends = np.repeat([span.depth + ran for span in spans], [span.rows for span in spans])
            self.steps, self.rows = self.steps + ran, self.rows + ran * len(lines)
            self.late += int(np.clip(ends - self.states.depths(lines), 0, ran).sum())
        for sequence, depth, _, last in planned:
            sequence.filled[depth : depth + ran] = [last + 1] * ran
            for deeper in range(depth + ran, depth + asked):
                self.loop.truncate(sequence.loop[deeper], sequence.filled[deeper])

    def _deeper_pages(self, spans: list[Span], loops: int) -> int:
        """Get pages for the loops behind the first, which has them; for how many loops, at most `loops`, there are.

        None is copied that another sequence holds too: a loop that does not run would have cost a page for good.
        """
        extend = self.loop.extend_own
        for ahead in range(1, loops):
            for sequence, depth, first, last in spans:
                if not extend(sequence.loop[depth + ahead], first, last):
                    return ahead
        return loops

    def _shared(self, span: Span) -> list[Span]:
        """The spans that run of this one, where halted positions take their entries from the depth before."""
        sequence = span.sequence
        if sequence.policy != "share":
            return [span]
        positions = span.first + np.flatnonzero(self.states.halted[sequence.states(span.first, span.last)])
        if positions.size:
            block, offset = np.divmod(positions, PAGE)
            before, here = (sequence.loop[depth].pages[block] for depth in (span.depth - 1, span.depth))
            self.loop.memory[:, here, offset] = self.loop.memory[:, before, offset]
        return going(span, self.states.halted)

    def _release(self, sequence: Sequence) -> None:
        """The states of positions that have run every depth and are answered are not needed any more."""
        done = min(sequence.complete, sequence.length) - (sequence.length - len(sequence.lines))
        if done > 0:
            self.states.end(sequence.lines[:done])
            del sequence.lines[:done]

    def repay(self, sequence: Sequence, at_least: int | None = None) -> None:
        """Make what lags run, where it is too much (`at_least` positions; default: `max_lag`): call it when nothing of
        the sequence will be forgotten."""
        most = self.max_lag if at_least is None else at_least
        if most is not None and sequence.lag >= most:
            sequence.job = Job(sequence.complete, sequence.length - 1, sequence.limit, whole=True, answers=False)
