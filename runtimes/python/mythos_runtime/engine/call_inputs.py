"""What a call of a row graph is told of its rows: where they stand, in which loop they are, and where they halt."""

from __future__ import annotations

from collections.abc import Sequence as Several

import numpy as np

from mythos_runtime.engine.pages import Table
from mythos_runtime.engine.sequence import Span
from mythos_runtime.engine.states import States
from mythos_runtime.row_ports import PAGE

Tables = Several[Several[Table]]
"""Of each loop that a call may run: the tables of its spans."""

_ALWAYS = np.float32(-np.inf)  # with `last`: every exit rule lets a position leave


def blocks_of(spans: Several[Span]) -> int:
    """The width of the tables of a call: few sizes, for each is bound anew."""
    last = spans[0].last if len(spans) == 1 else max(span.last for span in spans)
    return few_sizes(last // PAGE + 1)


def few_sizes(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def put_place(
    spans: Several[Span],
    tables: Tables,
    position: np.ndarray,
    span_of: np.ndarray,
    table: np.ndarray,
    numbers: np.ndarray,
) -> None:
    """Say where the rows of a call stand.

    Args:
        position, span_of: int64 [r], to be set.
        table: int64 [loops or more, spans or more, blocks], to be set as far as it is read.
        numbers: 0, 1, 2 and so on, r or more of them.
    """
    first = np.array([span.first for span in spans])
    rows = np.array([span.last for span in spans]) - first + 1
    ahead = first - (rows.cumsum() - rows)  # of a span's place in the call
    position[:] = np.repeat(ahead, rows) + numbers[: len(position)]
    span_of[:] = np.repeat(numbers[: len(spans)], rows)
    for line, of_spans in zip(table, tables, strict=False):
        for index, (span, pages) in enumerate(zip(spans, of_spans, strict=True)):
            needed = span.last // PAGE + 1
            line[index, :needed] = pages.pages[:needed]


def put_knobs(
    states: States,
    lines: np.ndarray,
    spans: Several[Span],
    loop: np.ndarray,
    last: np.ndarray,
    threshold: np.ndarray,
    loops: int = 1,
) -> None:
    """Say of every row which loop it runs first, and of it and those behind it, `loops` in all, whether that is the
    row's last, and where it halts.

    Args:
        loop: int64 [r]. last: bool, threshold: float32, [loops or more, r]. All three are set.
    """
    rows = [end - first + 1 for _, _, first, end in spans]
    loop[:] = np.repeat([span.depth for span in spans], rows)
    ends = loop + np.arange(1, loops + 1)[:, None]
    last, threshold = last[:loops], threshold[:loops]
    last[:] = ends == np.repeat([span.sequence.limit for span in spans], rows)
    threshold[:] = states.threshold[lines]
    if any(span.sequence.capped for span in spans):
        own = np.repeat([span.sequence.threshold for span in spans], rows)
        _cap(ends == states.cap[lines], np.broadcast_to(own, ends.shape), last, threshold)


def put_stops(spans: Several[Span], stops: np.ndarray) -> None:
    """Say of every row, bool [r], whether other rows are due where it halts: whether it is the last of its span, and
    that does not run every depth anyway."""
    stops[:] = False
    ends = np.cumsum([span.last - span.first + 1 for span in spans])
    stops[ends - 1] = [span.sequence.job is None or not span.sequence.job.whole for span in spans]


def _cap(ends: np.ndarray, own: np.ndarray, last: np.ndarray, threshold: np.ndarray) -> None:
    """Let rows halt where their caps say.

    Args:
        ends: bool [loops, r], whether this loop is a row's cap. own: thresholds of the rows' sequences, alike.
        last, threshold: what the graph is to get, alike: without caps, and then with them.
    """
    forced = last & np.isnan(threshold)
    threshold[forced] = own[forced]  # at the limit nothing is forced: a sum that falls short takes no remainder
    early = ends & ~last
    last |= early
    threshold[early] = _ALWAYS
