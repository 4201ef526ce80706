"""Comparisons as tables."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table

from mythos_runtime.cli.terminal import escape, out


def show_parity(parity: Any) -> None:
    """The short form: a row a stage, what turned, and the verdict in one sentence."""
    table = Table("stage", "cases", "positions", "worst tensor", "error", "allowed", "")
    words = {"pass": "[green]equal[/]", "fail": "[red]differs[/]", "not run": "[yellow]not run[/]"}
    for stage in (*parity.stages, *parity.whole):
        if stage.worst is None:
            table.add_row(stage.name, "", "", "", "", "", words[stage.state])
            continue
        _, tensor, at, error, tolerance = stage.worst
        seen = f"{sum(r.compared for r in stage.results)} of {sum(r.positions for r in stage.results)}"
        worst = tensor if at is None else f"{tensor}, {at}"
        numbers = (_number(error), _number(tolerance))
        table.add_row(stage.name, str(len(stage.results)), seen, worst, *numbers, words[stage.state])
    out.print(table)
    for stage in (*parity.stages, *parity.whole):
        if stage.reason is not None:
            out.print(f"{stage.name} was not run: {stage.reason}", style="yellow", markup=False, highlight=False)
    out.print(escape(parity.verdict()), highlight=False)
    for check in parity.checks:
        held = "below" if check.value < check.bound else "NOT below"
        text = f"{check.name} of the weights: {check.value:.4f}, {held} {check.bound:g}; else {check.meaning}."
        out.print(escape(text[0].upper() + text[1:]), highlight=False)


def _number(value: float | None) -> str:
    """A cell; blank for what has no error, such as a number of loops."""
    if value is None:
        return ""
    return f"{value:.1e}" if math.isfinite(value) else "NaN or inf"
