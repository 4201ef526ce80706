"""A generation document as files: `generation.json`, and `generation.html` for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from mythos_export.bench.generation.measure import FULL, LAZY, LOCK_STEP, NATIVE
from mythos_export.report import COLORS, figure, svg, write_json, write_page
from mythos_runtime.outputs import writing

JSON_NAME, PAGE_NAME = "generation.json", "generation.html"
LABELS = {
    LAZY: "depth where it is needed, by Python's engine",
    FULL: "every depth, by Python's engine",
    NATIVE: "depth where it is needed, by the native engine",
    LOCK_STEP: "every depth, in lock-step",
}


def write_report(document: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write both files into a folder, which is made where it is not there; returns their paths (JSON, page).

    Raises:
        StorageError, RequestError: the folder cannot be written to.
    """
    with writing(folder, "-o"):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / JSON_NAME, document)
        page = write_page(
            folder / PAGE_NAME,
            "generation.html.j2",
            document=document,
            headline=headline(document),
            labels=LABELS,
            others=[name for name in ("parity", "latency") if (folder / f"{name}.html").is_file()],
            index=(folder / "index.html").is_file(),
            by_depth=_by_depth(document) if document["line"] else None,
            together=_together(document),
        )
    return folder / JSON_NAME, page


def headline(document: dict[str, Any]) -> str:
    """What depth saves here, in one sentence: with the native engine where it was measured, since that one runs."""
    line, many, one = document["line"], document["many"], document["one"]
    native = NATIVE in document["method"]["schedules"]
    schedule, engine = (NATIVE, "the native engine") if native else (LAZY, "the engine")
    said = []
    if native and one:
        ends = [pick(one, key=lambda row: row[LAZY]["mean_depth"]) for pick in (min, max)]
        times = [
            f"{1e3 * row[NATIVE]['seconds_per_token']['median']:.2f} ms a token at depth {row[LAZY]['mean_depth']:g}"
            for row in ends
        ]
        said.append(f"one sequence takes {' and '.join(dict.fromkeys(times))}")
    elif line is not None:
        said.append(
            f"one sequence takes {1e3 * line['fixed_seconds']:.2f} ms a token and {1e3 * line['step_seconds']:.2f} ms "
            "for every loop of it"
        )
    gains = [(row[schedule]["times_lock_step"]["median"], row) for row in many]
    if gains:
        most, least = max(gains, key=lambda gain: gain[0]), min(gains, key=lambda gain: gain[0])
        said.append(
            f"against lock-step with every loop {engine} gives {least[0]:.2f} times the tokens ({_where(least[1])}) "
            f"to {most[0]:.2f} times ({_where(most[1])})"
        )
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}."


def _where(row: dict[str, Any]) -> str:
    count = row["sequences"]
    return f"{count} sequence{'s' if count > 1 else ''}, {row['load']}"


def _by_depth(document: dict[str, Any]) -> Markup:
    """Milliseconds a token of one sequence against mean depth, the line of the even loads, and the machine's limit."""
    with figure(7.2, 3.4) as (made, axes):
        rows, line = document["one"], document["line"]
        for schedule, color, marker in ((LAZY, COLORS[0], "o"), (NATIVE, COLORS[3], "D"), (LOCK_STEP, "#9aa7b3", "s")):
            if schedule not in rows[0]:
                continue
            depth = [row[LAZY]["mean_depth"] for row in rows]
            times = np.array([row[schedule]["seconds_per_token"]["median"] for row in rows]) * 1e3
            axes.plot(depth, times, marker, color=color, label=LABELS[schedule])
        ends = np.array([0, max(row[LAZY]["mean_depth"] for row in rows)])
        fitted = (line["fixed_seconds"] + line["step_seconds"] * ends) * 1e3
        axes.plot(ends, fitted, color=COLORS[0], linewidth=1.2, label="line through even depths")
        even = sorted((row[LAZY]["mean_depth"], row[LAZY]["limit_seconds_per_token"]) for row in rows)
        axes.plot(
            *zip(*[(d, 1e3 * t) for d, t in even], strict=True), "--", color=COLORS[1], label="the machine's limit"
        )
        axes.set_xlabel("loops a token, on average")
        axes.set_ylabel("ms a token")
        axes.set_xlim(0)
        axes.set_ylim(0)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
        return svg(made, "one sequence: milliseconds a token against mean depth")


def _together(document: dict[str, Any]) -> list[tuple[str, Markup]]:
    """By load: tokens a second against sequences."""
    plots = []
    for load in dict.fromkeys(row["load"] for row in document["many"]):
        rows = [row for row in document["many"] if row["load"] == load]
        with figure(7.2, 3.0) as (made, axes):
            counts = [row["sequences"] for row in rows]
            for schedule, color in ((LAZY, COLORS[0]), (FULL, COLORS[2]), (NATIVE, COLORS[3]), (LOCK_STEP, "#9aa7b3")):
                if schedule not in rows[0]:
                    continue
                rates = [row[schedule]["tokens_per_second"] for row in rows]
                axes.plot(counts, rates, "o-", color=color, label=LABELS[schedule])
            limits = [1 / row[LAZY]["limit_seconds_per_token"] for row in rows]
            axes.plot(counts, limits, "--", color=COLORS[1], label="the machine's limit")
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(counts, [str(count) for count in counts])
            axes.set_xlabel("sequences")
            axes.set_ylabel("tokens a second")
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
            plots.append((load, svg(made, f"{load}: tokens a second against sequences")))
    return plots
