"""Cache lines are held to what rounding moves, however far eager was off by rounding one value the other way."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mythos_export.verify import golden
from mythos_export.verify.tolerances import FACTOR, MOVED, MOVED_LINES, Tolerances

EAGER, APART = "eager", "the model that rounds none"
ERRORS = {EAGER: 0.5, APART: 1.0}


@pytest.mark.parametrize("rounded", [True, False])
def test_lines_are_allowed_what_rounding_moves(rounded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(asked: Sequence[Any], comparisons: Any, precision: str, factor: float) -> Tolerances:
        off = factor * max(ERRORS[each.eager] for each in asked)
        return Tolerances(precision, dict.fromkeys(("new_loop", "entries", "h"), (off,)), {"halted": (off,)})

    def asked(eager: str) -> Any:
        return SimpleNamespace(case=SimpleNamespace(name="a case"), eager=eager)

    monkeypatch.setattr(golden, "measure", measure)
    monkeypatch.setattr(golden, "compare", lambda case, eager, tolerances: None)
    outputs = [SimpleNamespace(role="new", name="new_loop"), SimpleNamespace(role="logits", name="logits")]
    spec = SimpleNamespace(int8_cache=rounded, ports=SimpleNamespace(outputs=outputs))
    truth: Any = SimpleNamespace(
        apart=[asked(APART)], model=SimpleNamespace(spec=spec, entry_names=lambda: ["entries"])
    )
    found = golden._measured(truth, [asked(EAGER)], "fp32")
    others = max(FACTOR * ERRORS[EAGER], MOVED * ERRORS[APART])
    lines = MOVED_LINES * ERRORS[APART] if rounded else others
    assert found.of("new_loop", 0) == found.of("entries", 0) == lines
    assert found.of("h", 0) == found.band("halted", 0) == others
