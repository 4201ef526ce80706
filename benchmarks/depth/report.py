"""The figures of a sweep as a JSON document, an HTML page and a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.depth.curves import Recommendation, mean_with_interval, overthinking, saturation
from benchmarks.depth.sweep import FORCED_LOOPS, HALT_THRESHOLD, MAX_LOOPS, Sweep, Task
from mythos_export.report import COLORS, figure, legend, svg, write_page

TEMPLATE = "depth.html.j2"
KNOBS = (MAX_LOOPS, HALT_THRESHOLD, FORCED_LOOPS)


def describe(name: str, task: Task, measured: Sweep, trained_loops: int, machine: str) -> dict[str, Any]:
    """Everything measured and concluded, as JSON; losses in bits, times in milliseconds."""
    points: dict[str, list[dict[str, Any]]] = {}
    harm: dict[str, Any] = {}
    for knob in KNOBS:
        mine = [index for index, setting in enumerate(measured.settings) if setting.knob == knob]
        points[knob] = [_point(measured, index) for index in mine]
        values = np.array([measured.settings[index].value for index in mine])
        harm[knob] = asdict(overthinking(values, measured.loss[mine]))
    by_loops = [index for index, setting in enumerate(measured.settings) if setting.knob == MAX_LOOPS]
    loops = np.array([float(measured.settings[index].max_loops) for index in by_loops])
    return {
        "model": name,
        "measure": task.measure,
        "inputs": len(task.ids),
        "tokens": task.ids.shape[1],
        "trained_loops": trained_loops,
        "machine": machine,
        "points": points,
        **_saturation(loops, measured.loss[by_loops]),
        "overthinking": harm,
    }


def _saturation(loops: np.ndarray, loss: np.ndarray) -> dict[str, Any]:
    """The fit, or None and why: a curve that no fit follows must not cost the figures."""
    try:
        return {"saturation": asdict(saturation(loops, loss))}
    except (RuntimeError, ValueError) as error:  # what scipy's curve_fit raises
        return {"saturation": None, "saturation_failed": f"no saturating curve could be fitted: {error}"}


def _point(measured: Sweep, index: int) -> dict[str, Any]:
    setting = measured.settings[index]
    return {
        "value": setting.value,
        "max_loops": setting.max_loops,
        "halt_threshold": setting.halt_threshold,
        "loss": asdict(mean_with_interval(measured.loss[index])),
        "right": float(measured.right[index].mean()),
        "depth": float(measured.depth[index].mean()),
        "loops": float(measured.loops[index].mean()),
        "ms": 1e3 * float(measured.seconds[index].mean()),
    }


def write(folder: Path, document: dict[str, Any], recommended: Sequence[Recommendation]) -> tuple[Path, Path]:
    """`<model>.json` and `<model>.html` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    document = document | {"recommended": [asdict(one) for one in recommended]}
    data = folder / f"{document['model']}.json"
    partial = data.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, data)
    with figure(width=7.2, height=3.2) as (fig, axes):
        draw_loops(axes, document)
        legend(fig, axes, columns=2)
        by_loops = svg(fig, f"{document['measure']} over the most loops allowed")
    with figure(width=7.2, height=3.2) as (fig, axes):
        for color, knob in zip(COLORS, KNOBS, strict=False):
            costs = [point["ms"] for point in document["points"][knob]]
            losses = [point["loss"]["value"] for point in document["points"][knob]]
            axes.plot(costs, losses, "o-", color=color, label=knob, markersize=3)
        axes.set(xlabel="ms per input", ylabel=document["measure"])
        legend(fig, axes)
        by_cost = svg(fig, f"{document['measure']} over time per input")
    page = folder / f"{document['model']}.html"
    others = sorted(other.stem for other in folder.glob("*.html") if other != page)
    plots = {"by_loops": by_loops, "by_cost": by_cost}
    write_page(page, TEMPLATE, report=document, recommended=recommended, others=others, **plots)
    return data, page


def draw_loops(axes: Any, document: dict[str, Any]) -> None:
    """Loss over loop budgets, its confidence band, the fit, the loss without halting, and the loops of training."""
    points = document["points"][MAX_LOOPS]
    loops = np.array([point["value"] for point in points])
    band = [[point["loss"][end] for point in points] for end in ("low", "high")]
    axes.fill_between(loops, *band, color=COLORS[0], alpha=0.15, linewidth=0)
    axes.plot(loops, [point["loss"]["value"] for point in points], "o-", color=COLORS[0], label="halting by itself")
    forced = document["points"][FORCED_LOOPS]
    values, losses = [point["value"] for point in forced], [point["loss"]["value"] for point in forced]
    axes.plot(values, losses, "x:", color=COLORS[2], linewidth=1, label="forced, no halting")
    if fit := document["saturation"]:
        floor, gain, scale = (fit[name]["value"] for name in ("floor", "gain", "scale"))
        fine = np.linspace(loops[0], loops[-1], 200)
        label = f"fit, {fit['explained']:.1%} explained"
        axes.plot(fine, floor + gain * np.exp(-fine / scale), "--", color=COLORS[1], linewidth=1.2, label=label)
    axes.axvline(document["trained_loops"], color="#888888", linewidth=1, linestyle=":", label="loops of training")
    axes.set(xlabel="max_loops", ylabel=document["measure"])
    means = np.array([point["loss"]["value"] for point in points] + losses)
    second = points[1]["loss"]["value"]  # a single loop may be so far off that nothing else could be seen
    axes.set_ylim(top=min(means.max(), second + 0.7 * (second - means.min())) + 0.05 * (second - means.min()))


def draw_picture(documents: Sequence[dict[str, Any]], file: Path) -> Path:
    """Models side by side: loss above, loops that ran below, over the loop budget; an SVG file."""
    with figure(width=3.6 * len(documents), height=5.4, rows=2, columns=len(documents)) as (fig, axes):
        for column, document in enumerate(documents):
            above, below = np.reshape(axes, (2, -1))[:, column]
            draw_loops(above, document)
            above.set(title=document["model"], xlabel="")
            points = document["points"][MAX_LOOPS]
            allowed = [point["value"] for point in points]
            below.plot(allowed, allowed, ":", color="#888888", label="allowed")
            below.plot(allowed, [point["loops"] for point in points], "o-", color=COLORS[2], label="ran")
            below.plot(allowed, [point["depth"] for point in points], "s-", color=COLORS[3], label="mean depth")
            below.set(xlabel="max_loops", ylabel="loops")
        lines = [part for one in (above, below) for part in zip(*one.get_legend_handles_labels(), strict=True)]
        names = [label.partition(",")[0] if label.startswith("fit") else label for _, label in lines]
        fig.legend([handle for handle, _ in lines], names, loc="outside upper center", ncols=4)
        drawn = svg(fig, "loss and loops over the loop budget, " + ", ".join(d["model"] for d in documents))
    text = str(drawn).replace("<svg", '<svg width="100%" style="background:#fff"', 1)
    file.write_text(text + "\n", encoding="utf-8")
    return file
