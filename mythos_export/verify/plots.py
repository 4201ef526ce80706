"""The outcome in plots, for the page."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from markupsafe import Markup

from mythos_export.report import COLORS, figure, legend, svg
from mythos_export.verify.growth import Growth
from mythos_export.verify.parity import Parity
from mythos_export.verify.results import StageResult

PANEL_COLUMNS = 3


def growth_plot(parity: Parity, stages: list[tuple[StageResult, Growth]]) -> Markup:
    """Error of the state in every stage's deepest case, iteration by iteration, on a logarithmic axis."""
    tensor = stages[0][1].tensor
    with figure(7.2, 3.4) as (made, axes):
        longest = 0
        for index, (stage, growth) in enumerate(stages):
            x, y = _points(growth.errors)
            longest = max(longest, len(growth.errors))
            axes.semilogy(x, y, marker=_marker(index), color=COLORS[index % len(COLORS)], label=stage.name, alpha=0.9)
        limit = [parity.tolerances.of(tensor, index) for index in range(longest)]
        axes.semilogy(range(1, longest + 1), limit, "--", color="#333333", linewidth=1.2, label="allowed")
        _loop_axis(axes, longest)
        axes.set_ylabel(f"error of {tensor}, relative")
        made.legend(ncols=4, fontsize=9, loc="outside lower center")
        return svg(made, f"error of {tensor} per iteration and stage, logarithmic")


def panels_plot(parity: Parity, ran: list[StageResult]) -> Markup:
    """The largest error over all cases, for every tensor inside the loop; of numbered ones (`entries.7`) the worst."""
    panels = _panels(parity, ran)
    rows = math.ceil(len(panels) / PANEL_COLUMNS)
    height = 2.3 * rows
    margins = {"left": 0.08, "right": 0.99, "bottom": 0.28 / height, "top": 1 - 0.28 / height}
    margins |= {"wspace": 0.3, "hspace": 0.3}
    with figure(7.2, height, rows, PANEL_COLUMNS, margins) as (made, grid):
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (tensor, title) in zip(grid.flat, panels.items(), strict=False):
            longest = 0
            for index, stage in enumerate(ran):
                series = _largest(result.errors.get(tensor, []) for result in stage.results)
                longest = max(longest, len(series))
                x, y = _points(series)
                axes.semilogy(
                    x, y, marker=_marker(index), color=COLORS[index % len(COLORS)], markersize=3, linewidth=1.2
                )
            limit = [parity.tolerances.of(tensor, index) for index in range(longest)]
            axes.semilogy(range(1, longest + 1), limit, "--", color="#333333", linewidth=1)
            axes.set_title(title, fontsize=9)
            axes.tick_params(labelsize=8)
            _loop_axis(axes, longest, label=False)
        return svg(made, "largest error of every tensor inside the loop per iteration, logarithmic")


def _panels(parity: Parity, ran: list[StageResult]) -> dict[str, str]:
    """Tensors of the trace that have errors, with a title; of those with the same name before the dot, the one that
    uses most of what it is allowed."""
    groups: dict[str, dict[str, float]] = {}
    for tensor in (each.name for each in parity.spec.trace):
        series = _largest(result.errors.get(tensor, []) for stage in ran for result in stage.results)
        used = [error / parity.tolerances.of(tensor, index) for index, error in enumerate(series)]
        if used:
            groups.setdefault(tensor.partition(".")[0], {})[tensor] = max(used)
    worst = [(max(used, key=lambda name: used[name]), len(used)) for used in groups.values()]
    return {name: name if count == 1 else f"{name}, the worst of {count}" for name, count in worst}


def depth_plot(parity: Parity, ran: list[StageResult]) -> Markup:
    """After how many loops positions stopped: float64 beside the stage that differs most from it."""
    other = most_different(parity, ran)
    depths = sorted({*parity.depths, *other.depths})
    with figure(7.2, 2.6) as (made, axes):
        x = np.arange(len(depths))
        axes.bar(x - 0.2, [parity.depths.get(depth, 0) for depth in depths], 0.4, label="float64", color=COLORS[6])
        axes.bar(x + 0.2, [other.depths.get(depth, 0) for depth in depths], 0.4, label=other.name, color=COLORS[0])
        axes.set_xticks(x, [str(depth) for depth in depths])
        axes.set_xlabel("loops that contributed to a position")
        axes.set_ylabel("positions")
        axes.set_yscale("symlog", linthresh=1)  # a few deep positions matter beside thousands of shallow ones
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
        legend(made, axes)
        return svg(made, f"histogram of halting depths, float64 beside {other.name}")


def most_different(parity: Parity, ran: list[StageResult]) -> StageResult:
    """Of the stages that ran every case, the one whose histogram is farthest from the truth; the last of equals."""
    complete = [stage for stage in ran if sum(stage.depths.values()) == sum(parity.depths.values())]

    def distance(stage: StageResult) -> int:
        return sum(abs(parity.depths.get(d, 0) - stage.depths.get(d, 0)) for d in {*parity.depths, *stage.depths})

    return max(reversed(complete or ran), key=distance)


def _loop_axis(axes: Any, longest: int, label: bool = True) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    low, high = axes.get_ylim()
    axes.set_ylim(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high)))  # whole decades
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    # A hundred small ticks and formulas as labels would take most of the drawing's time.
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
    axes.set_xlim(0.5, max(longest, 1) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10 if label else 5))
    if label:
        axes.set_xlabel("iteration")


def _points(errors: Any) -> tuple[list[int], list[float]]:
    """What a logarithmic axis can show."""
    kept = [(index + 1, error) for index, error in enumerate(errors) if 0 < error < math.inf]
    return [x for x, _ in kept], [y for _, y in kept]


def _largest(series: Any) -> list[float]:
    found: list[float] = []
    for each in series:
        found += [0.0] * (len(each) - len(found))
        found = [max(a, b) for a, b in zip(found, [*each, *[0.0] * (len(found) - len(each))], strict=True)]
    return found


def _marker(index: int) -> str:
    return "os^vDPX*"[index % 8]
