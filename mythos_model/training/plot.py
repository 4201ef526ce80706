"""The course of a run as one picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mythos_model.training.tasks.task import Metrics

NOT_DRAWN = ("step", "learning rate", "loops", "gradient")  # known beforehand, or of no use to a reader


def draw_history(history: Sequence[Metrics], file: Path) -> Path:
    """One panel per recorded figure over the steps, smoothed over a fiftieth of the run, into an SVG file."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    names = [name for name in history[-1] if name not in NOT_DRAWN]
    rows = -(-len(names) // 3)
    figure = Figure(figsize=(11, 2.4 * rows), layout="constrained")
    FigureCanvasSVG(figure)
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, 3, index + 1)
        records = [record for record in history if name in record]
        steps, values = [record["step"] for record in records], [record[name] for record in records]
        axes.plot(steps, values, color="#bbbbbb", linewidth=0.6)
        axes.plot(steps, _smooth(values, max(len(values) // 50, 1)), color="#0072B2")
        axes.set_title(name, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    partial = file.with_suffix(".partial")
    figure.savefig(partial, format="svg", metadata={"Date": None})
    os.replace(partial, file)
    return file


def _smooth(values: Sequence[float], width: int) -> list[float]:
    """Mean of the `width` records up to each."""
    starts = (max(0, end - width) for end in range(1, len(values) + 1))
    return [sum(values[start:end]) / (end - start) for end, start in enumerate(starts, 1)]
