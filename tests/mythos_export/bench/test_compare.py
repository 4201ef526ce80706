"""What two reports say together."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from mythos_export.bench.compare import ABSENT, FASTER, OTHER_LOOPS, SAME, SLOWER, UNKNOWN, compare
from mythos_export.bench.verdict import verdict
from mythos_export.errors import BenchError


def row(workload: str, median: float, width: float = 0.05) -> dict[str, Any]:
    interval = {"low": median * (1 - width), "high": median * (1 + width), "coverage": 0.97}
    named = {"workload": workload, "backend": "b", "loops": 4, "bound_by": "reading"}
    return {**named, "median": median, "interval": interval}


def report(*rows: dict[str, Any], speed: float = 1.0) -> dict[str, Any]:
    return {
        "machine": {"cpu": "c", "threads": 1},
        "bundle": {"precision": "fp32", "config": {"dim": 8}},
        "limits": {"read": [{"bytes_per_second": 1e9 * speed}], "product": {"flops_per_second": 1e9 * speed}},
        "method": {"inputs": "random ids"},
        "rows": list(rows),
    }


def test_only_what_both_spreads_cannot_explain_is_a_change() -> None:
    a = report(row("same", 1.0), row("slower", 1.0), row("faster", 1.0), row("gone", 1.0))
    b = report(row("same", 1.08), row("slower", 1.5), row("faster", 0.5), row("new", 1.0))
    found = {change.workload: change.verdict for change in compare(a, b)}
    assert found == {"same": SAME, "slower": SLOWER, "faster": FASTER, "gone": ABSENT, "new": ABSENT}
    assert [change.workload for change in compare(a, b)][:2] == ["slower", "faster"]


def test_a_machine_that_became_slower_explains_rows_that_did() -> None:
    a, b = report(row("follows", 1.0), row("worse", 1.0)), report(row("follows", 1.6), row("worse", 3.0), speed=1 / 1.6)
    assert {change.workload: change.verdict for change in compare(a, b)} == {"follows": SAME, "worse": SLOWER}


def test_few_rounds_and_other_loops_decide_nothing() -> None:
    few, deeper = row("few", 3.0), row("deeper", 3.0)
    few["interval"]["coverage"] = 0.75
    deeper["loops"] = 5
    a = report(row("few", 1.0), row("deeper", 1.0))
    assert {c.workload: c.verdict for c in compare(a, report(few, deeper))} == {"few": UNKNOWN, "deeper": OTHER_LOOPS}


def test_reports_of_different_things_are_refused() -> None:
    a = report(row("w", 1.0))
    for path in (("machine", "threads"), ("bundle", "config"), ("method", "inputs")):
        b = copy.deepcopy(a)
        b[path[0]][path[1]] = {"dim": 9} if path[1] == "config" else 2
        with pytest.raises(BenchError, match=r"threads|configuration|inputs"):
            compare(a, b)


def test_the_verdict_calls_nobody_faster_whose_interval_another_reaches() -> None:
    document: dict[str, Any] = {
        "model": {"trained_loops": 8},
        "workloads": [{"name": "decode 128", "kind": "decode", "batch": 1, "depth": 8, "tokens": 1, "held": 128}],
        "contestants": [{"name": "slow"}],
        "noise": {"quiet": True, "reasons": []},
        "rows": [
            {**row("decode 128", median), "backend": name, "ratio": 2.0 / median, "fraction_of_limit": 0.5}
            for name, median in (("slow", 2.0), ("fast", 1.0), ("near", 1.06))
        ],
    }
    assert "with fast, level with near as the fastest of 3 and 2.0 times as fast as slow" in verdict(document)
    document["rows"].pop()
    assert "with fast, the fastest of 2 and" in verdict(document)
    document["rows"][0]["interval"]["coverage"] = 0.5
    assert "too few rounds to tell which is the fastest" in verdict(document)
