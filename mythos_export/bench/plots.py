"""The plots of a latency report."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from mythos_export.bench.breakdown import PARTS
from mythos_export.report import COLORS, figure, legend, svg
from mythos_export.report.format import seconds


def contestant_bars(rows: list[dict[str, Any]], ours: set[str], title: str) -> Markup:
    """One bar per contestant, the fastest on top, with its interval and the machine's limit as a line.

    `ours` are the contestants that run the bundle itself; the others are grey.
    """
    rows = sorted(rows, key=lambda row: -row["median"])
    with figure(7.2, 0.62 + 0.36 * len(rows)) as (made, axes):
        places = np.arange(len(rows))
        medians = np.array([row["median"] for row in rows]) * 1e3
        low = medians - np.array([row["interval"]["low"] for row in rows]) * 1e3
        high = np.array([row["interval"]["high"] for row in rows]) * 1e3 - medians
        colors = [COLORS[0] if row["backend"] in ours else "#9aa7b3" for row in rows]
        axes.barh(places, medians, 0.62, color=colors, xerr=[low, high], ecolor="#333333", capsize=2.5)
        for place, row in zip(places, rows, strict=True):
            edge = row["interval"]["high"] * 1e3
            axes.annotate(seconds(row["median"]), (edge, place), (5, 0), textcoords="offset points", va="center")
        label = "ms a call"
        limits = [row["limit_seconds"] for row in rows if row["limit_seconds"] is not None]
        if limits:  # rounded weights have a lower one
            what = "the processor's limit for it" if max(limits) == min(limits) else "the limit with its own weights"
            axes.axvline(max(limits) * 1e3, color=COLORS[1], linewidth=1.2, linestyle="--")
            label += f"; dashed: {what}, {seconds(max(limits))}"
        axes.set_yticks(places, [row["backend"] for row in rows])
        axes.set_xlim(0, max(row["interval"]["high"] for row in rows) * 1e3 * 1.16)
        axes.set_xlabel(label)
        axes.grid(axis="y", visible=False)
        return svg(made, f"{title}: milliseconds by contestant")


def depth_plot(lines: list[dict[str, Any]], title: str) -> Markup:
    """Measured medians against loops, and the fitted line from no loop on."""
    with figure(7.2, 3.0) as (made, axes):
        for line, color in zip(lines, [*COLORS, *COLORS], strict=False):
            depths, values = zip(*line["points"], strict=True)
            ends = np.array([0, max(depths)])
            fitted = line["fixed"]["median"] + line["per_loop"]["median"] * ends
            axes.plot(ends, fitted * 1e3, color=color, linewidth=1.2)
            axes.plot(depths, np.array(values) * 1e3, "o", color=color, label=line["backend"])
        axes.set_xlabel("loops run")
        axes.set_ylabel("ms a call")
        axes.set_xlim(0)
        axes.set_ylim(0)
        legend(made, axes)
        return svg(made, f"{title}: cost against depth")


def breakdown_bars(profiles: list[dict[str, Any]]) -> Markup:
    """One bar per profile, cut into parts; the loop's parts and those outside of it share colours."""
    with figure(7.2, 1.1 + 0.42 * len(profiles)) as (made, axes):
        places = np.arange(len(profiles))[::-1]
        left = np.zeros(len(profiles))
        for part, color in zip(PARTS, (COLORS[0], COLORS[1], COLORS[4], COLORS[3], COLORS[5], "#c9cfd5"), strict=True):
            shares = np.array(
                [sum(cell["share"] for cell in p["cells"] if cell["part"] == part) * 100 for p in profiles]
            )
            axes.barh(places, shares, 0.62, left=left, color=color, label=part)
            left += shares
        names = [f"{p['workload'].partition(',')[0]}\n{p['backend'].removeprefix('ONNX Runtime, ')}" for p in profiles]
        axes.set_yticks(places, names)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of the call")
        axes.grid(axis="y", visible=False)
        legend(made, axes)
        return svg(made, "share of the time by part")
