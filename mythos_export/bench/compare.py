"""Two reports of one machine: what became faster or slower, beyond what both runs' spread explains."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mythos_export.bench.statistics import DECIDES, Interval
from mythos_export.errors import BenchError

SAME, FASTER, SLOWER, ABSENT = "no change beyond noise", "faster", "slower", "only in one report"
UNKNOWN, OTHER_LOOPS = "cannot tell: too few rounds", "cannot tell: another number of loops ran"


@dataclass(frozen=True)
class Change:
    """One row of both reports. `ratio` is B's time over A's, with the widest interval that both allow.

    `expected` is the ratio of the machine's speed in the two runs at what bounds this row (A's rate over B's): a row
    that only followed it has not changed.
    """

    workload: str
    backend: str
    before: float | None
    after: float | None
    ratio: float | None
    low: float | None
    high: float | None
    expected: float
    verdict: str


def compare(a: dict[str, Any], b: dict[str, Any]) -> list[Change]:
    """Row by row, A before and B after; what changed comes first, the largest change leading.

    Raises:
        BenchError: the reports are of different models, inputs or numbers of threads, so that nothing can be compared.
    """
    _check(a, b)
    before = {(row["workload"], row["backend"]): row for row in a["rows"]}
    after = {(row["workload"], row["backend"]): row for row in b["rows"]}
    drift = {
        "multiplying": a["limits"]["product"]["flops_per_second"] / b["limits"]["product"]["flops_per_second"],
        "reading": _reading(a) / _reading(b),
    }
    changes = [_change(key, before.get(key), after.get(key), drift) for key in dict.fromkeys([*before, *after])]
    rank = {SLOWER: 0, FASTER: 0, OTHER_LOOPS: 1, UNKNOWN: 1, ABSENT: 2, SAME: 3}
    return sorted(changes, key=lambda c: (rank[c.verdict], -abs((c.ratio or 1.0) - 1.0)))


def _change(
    key: tuple[str, str], a: dict[str, Any] | None, b: dict[str, Any] | None, drift: dict[str, float]
) -> Change:
    if a is None or b is None:
        before, after = (row["median"] if row else None for row in (a, b))
        return Change(*key, before, after, None, None, None, 1.0, ABSENT)
    first, second = _interval(a), _interval(b)
    expected = drift.get(b["bound_by"], 1.0)  # rows of a GPU are bound by nothing that was measured
    low, high = second.low / first.high, second.high / first.low
    verdict = SAME
    if a["loops"] != b["loops"]:
        verdict = OTHER_LOOPS
    elif min(first.coverage, second.coverage) < DECIDES:
        verdict = UNKNOWN
    # Beyond noise: with the machine's own drift taken out as well as left in, the intervals do not touch.
    elif low > max(1.0, expected):
        verdict = SLOWER
    elif high < min(1.0, expected):
        verdict = FASTER
    return Change(*key, a["median"], b["median"], b["median"] / a["median"], low, high, expected, verdict)


def _interval(row: dict[str, Any]) -> Interval:
    return Interval(row["median"], row["interval"]["low"], row["interval"]["high"], row["interval"]["coverage"])


def _reading(document: dict[str, Any]) -> float:
    middle = document["limits"]["read"][len(document["limits"]["read"]) // 2]
    rate: float = middle["bytes_per_second"]
    return rate


def _check(a: dict[str, Any], b: dict[str, Any]) -> None:
    for what, path in (
        ("processor", ("machine", "cpu")),
        ("number of threads", ("machine", "threads")),
        ("precision", ("bundle", "precision")),
        ("model configuration", ("bundle", "config")),
        ("inputs", ("method", "inputs")),
    ):
        first, second = a[path[0]][path[1]], b[path[0]][path[1]]
        if first != second:
            found = "" if isinstance(first, dict) else f" ({first} and {second})"
            raise BenchError(f"the two reports differ in the {what}{found}; compare reports of one model and machine")


def changes_json(changes: list[Change]) -> list[dict[str, Any]]:
    return [asdict(change) for change in changes]
