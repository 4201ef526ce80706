"""Drafts are chosen in C++ as in Python, where the same calls and the same rounds came before.

A history, as `mythos_speculation` (runtimes/cpp/tests/speculation.cpp) reads it: `loops` as trained, `fixed` (the depth
that drafts are taken at, or null) and its `events`, in order:

    ["call", graph, rows, seconds, alike]        what calls of a graph took
    ["choose", running, room]                    the only one that has an answer: [depth, drafts]
    ["saw", depth, drafts, right, deepest]       how a round ended
    ["went", loops]                              of a token
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import numpy as np
import pytest
from cpp_programs import BUILD

from mythos_runtime.engine.speculation import Speculation
from mythos_runtime.row_ports import ENTER, LEAVE, STEP

SPECULATION = BUILD / "mythos_speculation"
ROUNDS = 300  # beyond two peeks at another depth

pytestmark = pytest.mark.skipif(not SPECULATION.is_file(), reason="the C++ runtime is not built: make native")


def history(seed: int, loops: int, fixed: int | None) -> tuple[dict[str, Any], list[list[int]]]:
    """A history whose rounds are those that Python chooses, and these choices. How many drafts are right, and what
    calls take, drifts, so that first one depth pays and then another, or none."""
    r = np.random.default_rng(seed)
    speculation = Speculation(loops, fixed)
    events: list[list[Any]] = []
    choices: list[list[int]] = []
    right, step = r.uniform(0.6, 1.0), r.uniform(1e-4, 1e-3)
    for _ in range(ROUNDS):
        right, step = float(np.clip(right + r.normal(0, 0.05), 0.4, 1)), step * float(np.exp(r.normal(0, 0.05)))
        running, room = int(r.integers(1, 5)), int(r.choice([0, 1, 3, 20, 20, 20]))
        events.append(["choose", running, room])
        depth, drafts = speculation.choose(running, room)
        choices.append([depth, drafts])
        for graph, seconds in ((ENTER, 2e-4), (STEP, step), (LEAVE, 3e-4)):
            rows, alike = int(r.integers(1, 1 + running * (drafts + 1))), int(r.integers(1, 4))
            call = [graph, rows, seconds * (1 + 0.05 * rows) * float(r.uniform(0.9, 1.1)), alike]
            events.append(["call", *call])
            speculation.speed.lines[graph].add(*call[1:])
        deepest = int(r.integers(loops // 2 + 1, loops + 1))
        if drafts:
            came = int(np.cumprod(r.random(drafts) < right).sum())
            events.append(["saw", depth, drafts, came, deepest])
            speculation.saw(depth, drafts, came, deepest)
        events.append(["went", deepest])
        speculation.went(deepest)
    return {"loops": loops, "fixed": fixed, "events": events}, choices


def test_the_same_history_leads_to_the_same_choices() -> None:
    cases = [(seed, loops, fixed) for seed in range(8) for loops, fixed in ((2, None), (5, None), (16, None), (16, 2))]
    cases += [(8, 1, None), (9, 1, 3)]
    histories, expected = zip(*(history(*case) for case in cases), strict=True)
    lines = "".join(json.dumps(each) + "\n" for each in histories)
    done = subprocess.run([SPECULATION], input=lines, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for case, line, choices in zip(cases, done.stdout.splitlines(), expected, strict=True):
        assert json.loads(line) == choices, case
    # Not because there was nothing to choose: of some depths and lengths, and of none.
    assert len({tuple(choice) for choices in expected for choice in choices}) > 12
