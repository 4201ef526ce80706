"""A load report: serving.json, and serving.html with its curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.serving.measure import POLICIES
from mythos_export.report import COLORS, figure, svg, write_json, write_page

LABELS = {"lazy": "halting by itself", "full": "every loop forced"}
_LATENCIES = {"first": "to the first token, s", "whole": "to the end, s"}


def write(document: dict[str, Any], folder: Path) -> Path:
    """Both files into a folder; the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "serving.json", document)
    sections = [(mix, _curves(mix), summary(mix)) for mix in document["mixes"]]
    return write_page(
        folder / "serving.html",
        "serving.html.j2",
        document=document,
        sections=sections,
        policies=POLICIES,
    )


def _curves(mix: dict[str, Any]) -> str:
    """Answers a second and latencies over the arrival rate."""
    with figure(width=9.5, height=3.3, columns=3) as (made, axes):
        answers, *latencies = axes
        for policy, color in zip(POLICIES, COLORS, strict=False):
            runs = [run for run in mix["runs"] if run["policy"] == policy]
            arrivals = [run["arrivals_per_second"] for run in runs]
            answers.plot(arrivals, [run["answers_per_second"] for run in runs], "o-", color=color)
            for axis, name in zip(latencies, _LATENCIES, strict=True):
                for q, style in (("p50", "o-"), ("p95", "o:")):
                    known = [run for run in runs if run[name] is not None]
                    label = f"{LABELS[policy]}, {'median' if q == 'p50' else '95 %'}"
                    axis.plot(
                        [run["arrivals_per_second"] for run in known],
                        [run[name][q] for run in known],
                        style,
                        color=color,
                        label=label,
                    )
        answers.axline((0, 0), slope=1, color="#bbbbbb", linewidth=1)
        answers.set_ylabel("answers a second")
        for axis, name in zip(latencies, _LATENCIES.values(), strict=True):
            axis.set_yscale("log")
            axis.set_ylabel(name)
        made.legend(*latencies[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
        for axis in axes:
            axis.set_xlabel("arrivals a second")
        return svg(made, f"{mix['name']}: answers and latencies over the arrival rate")


def summary(mix: dict[str, Any]) -> str:
    lazy, full = (mix["capacity"][policy] for policy in POLICIES)
    times = full["cpu_per_token"] / lazy["cpu_per_token"]
    milliseconds = [f"{1e3 * each['cpu_per_token']:.1f}" for each in (full, lazy)]
    return (
        f"With every loop forced a token takes {times:.2f} times the processor time "
        f"({' against '.join(milliseconds)} ms, HTTP and streaming included); "
        f"tokens took {lazy['mean_depth']:.1f} loops on average"
    )
