"""Which rows the next call of the step graph takes: a function of the sequences alone, so that a schedule can be
replayed, and read.

A position runs depth t if it, or a later position of its sequence, has not halted before: the later one will look for
its entry. So the rows that are due for a job are those from the first without an entry at its depth up to its last
position that is still going, one contiguous causal chunk with whatever lags behind it.

Under the policy `share` the halted ones among them do not run: their entries are copied, and `going` is what is left.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mythos_runtime.engine.sequence import Sequence, Span


def due(sequence: Sequence, halted: np.ndarray) -> Span | None:
    """The rows of a sequence's job at its depth, with whatever lags; None where the job is through.

    Args:
        halted: of every state, by line.
    """
    job = sequence.job
    assert job is not None
    start = sequence.length - len(sequence.lines)  # the first position that has a state
    while job.depth < job.stop:
        last = job.last
        if not job.whole and halted[sequence.lines[last - start]]:
            if last == job.first:
                return None
            still = ~halted[sequence.states(job.first, last - 1)]
            behind = int(still[::-1].argmax())
            if not still[-1 - behind]:
                return None
            last -= 1 + behind
        if sequence.filled[job.depth] <= last:
            return Span(sequence, job.depth, sequence.filled[job.depth], last)
        job.depth += 1
    return None


def going(span: Span, halted: np.ndarray) -> list[Span]:
    """What is left of a span without its halted rows."""
    sequence = span.sequence
    rows = np.flatnonzero(~halted[sequence.states(span.first, span.last)])
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return [Span(sequence, span.depth, span.first + int(run[0]), span.first + int(run[-1])) for run in runs if run.size]


class Scheduler:
    """Deals the rows of a call."""

    def __init__(self, rows: int) -> None:
        """`rows`: the most that a call takes."""
        self.rows = rows
        self._tick = 0
        self._served: dict[Sequence, int] = {}

    def plan(self, spans: Iterable[Span]) -> list[Span]:
        """As many of the due rows as a call takes: who had none in the last call comes first, then who has the fewest
        (a token does not wait for a long prompt). The last one may be cut."""
        self._tick += 1
        waiting = list(spans)
        for span in waiting:
            self._served.setdefault(span.sequence, self._tick - 1)
        served, left, planned = self._served, self.rows, []
        for span in sorted(waiting, key=lambda span: (served[span.sequence], span.last - span.first)):
            if not left:
                break
            rows = span.rows
            if rows > left:
                span, rows = span._replace(last=span.first + left - 1), left
            left -= rows
            planned.append(span)
            served[span.sequence] = self._tick
        return planned

    def forget(self, sequence: Sequence) -> None:
        """A sequence has ended."""
        self._served.pop(sequence, None)
