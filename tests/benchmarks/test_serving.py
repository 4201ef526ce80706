"""Load and soak of the server: what is made of what was measured."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.serving.measure import POLICIES, _figures
from benchmarks.serving.mixes import MIXES
from benchmarks.serving.report import write
from benchmarks.serving.soak import growth
from mythos_model.pretrained import folder


def samples(**changes: Any) -> dict[str, Any]:
    measured = {"first": [0.1, 0.3], "next": [0.01] * 4, "whole": [0.5, 0.7], "tokens": 6, "loops": 15, "cpu": 0.3}
    counts = {"seconds": 4.0, "arrived": 3, "refused": 1, "failed": 0, "unanswered": 0}
    return measured | counts | changes


def test_figures() -> None:
    figures = _figures(samples())
    assert (figures["answers_per_second"], figures["tokens_per_second"]) == (0.5, 1.5)
    assert figures["mean_depth"] == 2.5 and figures["cpu_per_token"] == pytest.approx(0.05)
    assert figures["first"]["p50"] == pytest.approx(0.2) and figures["refused"] == 1
    nothing = _figures(samples(first=[], next=[], whole=[], tokens=0))
    assert nothing["mean_depth"] is None and nothing["first"] is None


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    runs = [
        {"policy": policy, "rate": rate, **_figures(samples(next=[]))} for rate in (1.0, 2.0) for policy in POLICIES
    ]
    slow = {"lazy": _figures(samples()), "full": _figures(samples(cpu=0.6))}
    mix = {"name": "a <mix>", "max_tokens": 1, "capacity": slow, "runs": runs, "late_share": 0.25, "load_before": 0.5}
    machine = {"cpu": "a processor", "logical_cores": 2}
    page = write({"machine": machine, "date": "2026-01-01", "seconds": 4, "mixes": [mix]}, tmp_path).read_text()
    assert "a &lt;mix&gt;" in page and "a token takes 2.00 times the processor time (100.0 against 50.0 ms" in page
    assert "every loop forced" in page and "25% of the step" in page and "<svg" in page


def test_growth_is_told_from_a_start() -> None:
    times = np.arange(0, 1000, 2.0)
    steady = [(time, int(2e8 + 5e7 * min(time / 200, 1))) for time in times]
    assert growth(steady) == pytest.approx(0, abs=0.01) and growth(steady[:200]) is None
    leaking = [(time, size + int(3e4 * time)) for time, size in steady]
    assert (growth(leaking) or 0) > 0.03


def test_mixes_ask_what_they_say() -> None:
    data = load_file(str(Path(folder("hops")) / "held_out.safetensors"))
    hops = {tuple(ids): int(count) for ids, count in zip(data["input_ids"].tolist(), data["hops"], strict=True)}
    asked = {mix.name: list(islice(mix.asks(3), 200)) for mix in MIXES}
    deep = {
        name: np.mean([hops[tuple(ids)] >= 7 for ids in prompts]) for name, prompts in asked.items() if "hops" in name
    }
    assert deep["hops, 1 or 2"] == 0 and deep["hops, 7 or 8"] == 1 and 0.05 < deep["hops, a tenth 7 or 8"] < 0.2
    assert asked["text"] == list(islice(MIXES[0].asks(3), 200)) and {len(ids) for ids in asked["text"]} <= set(
        range(24, 65)
    )
