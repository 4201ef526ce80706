"""The outcome as a page that people read, `reports/parity.html`, beside `reports/parity.json`."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from mythos_export.errors import PackageError
from mythos_export.report import COLORS, figure, svg, write_page
from mythos_export.report.format import error as error_text
from mythos_export.verify.parity import TRUTH, Parity
from mythos_export.verify.results import FAIL, NOT_RUN, CaseResult, Failure, StageResult
from mythos_export.verify.tolerances import FACTOR, FLOOR_ULPS
from mythos_export.verify.trace import UNIT_SCALE
from mythos_runtime.errors import RequestError
from mythos_runtime.manifest import Manifest

WORST_CASES = 10
NEAR_TIES = 20
PANELS = {
    "entries": "new cache entries",
    "weights": "expert weights",
    "h": "state h",
    "p": "halting probability p",
    "cumulative": "cumulative p",
    "out": "weighted sum of states",
}


JSON_NAME, PAGE_NAME = "parity.json", "parity.html"


def check_place(folder: Path, bundle: Path, manifest: Manifest) -> None:
    """Refuse to write over what the bundle's manifest vouches for: the report of its export.

    Raises:
        RequestError: the folder holds such files.
    """
    listed = {(bundle / name).resolve() for name in manifest.files}
    if any((folder / name).resolve() in listed for name in (JSON_NAME, PAGE_NAME)):
        raise RequestError(
            f"{folder} holds the report of the export, which belongs to the bundle: over another one it would no "
            "longer be valid; name another folder with --report"
        )


def write_reports(folder: Path, parity: Parity, manifest: Manifest) -> None:
    """Write parity.json and parity.html into a folder, which is made where it is not there.

    Raises:
        PackageError: the folder cannot be written to.
    """
    text = json.dumps(parity.to_json(), indent=1, allow_nan=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{JSON_NAME}.partial"
        draft.write_text(text + "\n", encoding="utf-8")
        os.replace(draft, folder / JSON_NAME)
        write_page(folder / PAGE_NAME, "parity.html.j2", **page_values(parity, manifest))
    except OSError as error:
        raise PackageError(f"cannot write the report into {folder}: {error.strerror}; name another folder") from error


def page_values(parity: Parity, manifest: Manifest) -> dict[str, Any]:
    """What the template shows."""
    ran = [stage for stage in parity.stages if stage.state != NOT_RUN]
    inside = [stage for stage in ran if stage.growth is not None]
    ties = [(stage.name, tie) for stage in parity.stages for tie in stage.near_ties]
    worst = sorted(parity.results, key=lambda result: result.worst.used, reverse=True)[:WORST_CASES]
    return {
        "source": manifest.source.name,
        "created": manifest.created,
        "parity": parity,
        "passed": parity.passed,
        "truth": TRUTH,
        "factor": f"{FACTOR:g}",
        "ulps": f"{FLOOR_ULPS:g}",
        "stage_rows": [_stage_row(stage) for stage in parity.stages],
        "logits_rows": [_logits_row(stage) for stage in ran],
        "growth_rows": [_growth_row(stage) for stage in inside],
        "growth_plot": growth_plot(parity, inside) if inside else "",
        "panels_plot": panels_plot(parity, inside) if inside else "",
        "depth_plot": depth_plot(parity, ran),
        "depth_stage": _most_different(parity, ran).name,
        "tie_rows": [_tie_row(stage, tie) for stage, tie in ties[:NEAR_TIES]],
        "ties": len(ties),
        "worst_rows": [_worst_row(result) for result in worst],
        "tolerance_rows": _tolerance_rows(parity),
        "replays": [failure.reproduction for failure in parity.failures if failure.reproduction is not None],
        "failure_rows": [_failure_row(failure) for failure in parity.failures],
    }


def growth_plot(parity: Parity, stages: list[StageResult]) -> Markup:
    """Error of h in every stage's deepest case, iteration by iteration, on a logarithmic axis."""
    with figure(7.2, 3.4) as (made, axes):
        longest = 0
        for index, stage in enumerate(stages):
            growth = stage.growth
            assert growth is not None
            x, y = _points(growth.errors)
            longest = max(longest, len(growth.errors))
            axes.semilogy(x, y, marker=_marker(index), color=COLORS[index % len(COLORS)], label=stage.name, alpha=0.9)
        limit = [parity.tolerances.of("h", index) for index in range(longest)]
        axes.semilogy(range(1, longest + 1), limit, "--", color="#333333", linewidth=1.2, label="allowed")
        _loop_axis(axes, longest)
        axes.set_ylabel("error of h, relative")
        made.legend(ncols=4, fontsize=9, loc="outside lower center")
        return svg(made, "error of the state h per iteration and stage, logarithmic")


def panels_plot(parity: Parity, stages: list[StageResult]) -> Markup:
    """The largest error over all cases, for every tensor inside the loop."""
    margins = {"left": 0.08, "right": 0.99, "bottom": 0.06, "top": 0.94, "wspace": 0.3, "hspace": 0.3}
    with figure(7.2, 4.6, rows=2, columns=3, margins=margins) as (made, grid):
        for axes, (tensor, title) in zip(grid.flat, PANELS.items(), strict=True):
            longest = 0
            for index, stage in enumerate(stages):
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


def depth_plot(parity: Parity, ran: list[StageResult]) -> Markup:
    """After how many loops positions stopped: float64 beside the stage that differs most from it."""
    other = _most_different(parity, ran)
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
        axes.legend()
        return svg(made, f"histogram of halting depths, float64 beside {other.name}")


def _most_different(parity: Parity, ran: list[StageResult]) -> StageResult:
    """Of the stages that ran every case, the one whose histogram is farthest from the truth; the last of equals."""
    complete = [stage for stage in ran if sum(stage.depths.values()) == sum(parity.depths.values())]

    def distance(stage: StageResult) -> int:
        return sum(abs(parity.depths.get(d, 0) - stage.depths.get(d, 0)) for d in {*parity.depths, *stage.depths})

    return max(reversed(complete or ran), key=distance)


def _failure_row(failure: Failure) -> list[Any]:
    problem = failure.problem
    where = f"iteration {problem.iteration}, {problem.tensor}" if problem.iteration is not None else problem.tensor
    found = f"{problem.text} ({failure.note})" if failure.note else problem.text
    return [failure.stage, failure.case, where, failure.operator or "", found]


def _stage_row(stage: StageResult) -> list[Any]:
    kind = {NOT_RUN: "warn", FAIL: "fail"}.get(stage.state, "pass")
    state = Markup('<span class="{}">{}</span>').format(
        kind, {"pass": "equal", "fail": "differs"}.get(stage.state, stage.state)
    )
    if stage.worst is None:
        return [stage.name, stage.runner, state, stage.reason or "", "", "", "", ""]
    case, tensor, at, error, tolerance = stage.worst
    positions = sum(result.positions for result in stage.results)
    compared = sum(result.compared for result in stage.results)
    numbers = ["" if value is None else error_text(value) for value in (error, tolerance)]
    counts = f"{len(stage.results)} cases, {compared} of {positions} positions"
    return [stage.name, stage.runner, state, counts, case, _tensor(tensor, at), *numbers]


def _logits_row(stage: StageResult) -> list[Any]:
    logits, generated = stage.logits, stage.generated
    text = "not run"
    if generated is not None and generated.differs_at is None:
        text = f"{len(generated.tokens)} tokens equal"
    elif generated is not None:
        text = f"differs at {generated.differs_at}" + (", a near tie" if generated.near_tie else "")
    if logits is None:
        return [stage.name, "", "", "", "", "", text]
    numbers = [error_text(n) for n in (logits.max_abs, logits.p99_abs, logits.relative_l2, logits.kl)]
    return [stage.name, *numbers, f"{logits.top1_agreement:.1%}", text]


def _growth_row(stage: StageResult) -> list[Any]:
    growth = stage.growth
    assert growth is not None
    factor = "none fitted" if growth.factor is None else f"x {growth.factor:.2f}"
    return [stage.name, growth.case, len(growth.errors), factor]


def _tie_row(stage: str, tie: Any) -> list[Any]:
    what = "whether to halt" if tie.decision == "halted" else f"which {tie.decision}"
    if tie.possible:
        what += " (may have fallen otherwise)"
    return [
        stage,
        tie.case,
        tie.row + 1,
        tie.token + 1,
        tie.iteration,
        what,
        error_text(tie.margin),
        error_text(tie.band),
    ]


def _worst_row(result: CaseResult) -> list[Any]:
    worst = result.worst
    return [
        result.stage,
        result.case,
        _tensor(worst.tensor, worst.at),
        error_text(worst.error),
        error_text(worst.tolerance),
        f"{worst.used:.0%}",
    ]


def _tensor(tensor: str, at: int | None) -> str:
    where = {"new_layers": "layer", "new_loop": "depth"}.get(tensor, "iteration")
    return tensor if at is None else f"{tensor}, {where} {at}"


def _tolerance_rows(parity: Parity) -> list[list[Any]]:
    rows = []
    for name, series in parity.tolerances.tensors.items():
        scale = "1" if name in UNIT_SCALE else "its largest value"
        rows.append([name, scale, error_text(series[0]), error_text(series[-1])])
    for name, series in parity.tolerances.bands.items():
        rows.append(
            [f"near tie: {name}", "logits" if "experts" in name else "1", error_text(series[0]), error_text(series[-1])]
        )
    return rows


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
