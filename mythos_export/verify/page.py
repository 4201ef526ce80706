"""The outcome as a page that people read, `reports/parity.html`, beside `reports/parity.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from mythos_export.report import write_json, write_page
from mythos_export.report.format import error as error_text
from mythos_export.verify.compare import NearTie, line
from mythos_export.verify.coverage import Covered, spread
from mythos_export.verify.growth import Growth
from mythos_export.verify.parity import TRUTH, Parity
from mythos_export.verify.plots import depth_plot, growth_plot, most_different, panels_plot
from mythos_export.verify.results import FAIL, NOT_RUN, CaseResult, Failure, StageResult
from mythos_export.verify.tolerances import FACTOR, FLOOR_ULPS
from mythos_export.verify.trace import halting, state
from mythos_model.state import Check
from mythos_runtime.errors import RequestError
from mythos_runtime.manifest import Manifest
from mythos_runtime.spec import LoopSpec

WORST_CASES = 10
NEAR_TIES = 20
JSON_NAME, PAGE_NAME = "parity.json", "parity.html"
HEADLINES = {
    True: "Every way to run this bundle that was tried gives the PyTorch model's answers, as far as rounding allows.",
    False: "This bundle does not give the answers of the PyTorch model; do not use it.",
}

SCOPED = "A reduced twin on the same weights gives the PyTorch model's answers, and so does this bundle in a few cases."


def check_place(folder: Path, bundle: Path, manifest: Manifest) -> None:
    """Refuse to write over what the bundle's manifest vouches for: the report of its export.

    Raises:
        RequestError: the folder holds such files.
    """
    listed = {(bundle / name).resolve() for name in (*manifest.files, *manifest.missing)}
    if any((folder / name).resolve() in listed for name in (JSON_NAME, PAGE_NAME)):
        raise RequestError(
            f"{folder} holds the report of the export, which belongs to the bundle: over another one it would no "
            "longer be valid; name another folder with --report"
        )


def write_reports(folder: Path, parity: Parity, manifest: Manifest, index: bool = False) -> None:
    """Write parity.json and parity.html into a folder, which is made where it is not there.

    `index`: whether a page that leads to all reports will be beside them. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JSON_NAME, parity.to_json())
    write_page(folder / PAGE_NAME, "parity.html.j2", index=index, **page_values(parity, manifest))


def page_values(parity: Parity, manifest: Manifest) -> dict[str, Any]:
    """What the template shows."""
    ran = [stage for stage in parity.stages if stage.state != NOT_RUN]
    whole = [stage for stage in parity.whole if stage.results]
    inside = [(stage, growth) for stage in ran if (growth := stage.growth(state(parity.spec))) is not None]
    ties = [(stage.name, tie) for stage in parity.stages for tie in stage.near_ties]
    worst = sorted(parity.results, key=lambda result: result.worst.used, reverse=True)[:WORST_CASES]
    return {
        "source": manifest.source.name,
        "created": manifest.created,
        "parity": parity,
        "verdict_state": "fail" if not parity.passed else "warn" if parity.basis.weak() or parity.scope else "pass",
        "headline": SCOPED if parity.passed and parity.scope else HEADLINES[parity.passed],
        "truth": TRUTH,
        "factor": f"{FACTOR:g}",
        "ulps": f"{FLOOR_ULPS:g}",
        "stage_rows": [_stage_row(parity.spec, stage) for stage in (*parity.stages, *parity.whole)],
        "logits_rows": [_logits_row(stage) for stage in (*ran, *whole)],
        "checks": [_check(check) for check in parity.checks],
        "state": state(parity.spec),
        "growth_rows": [_growth_row(stage, growth) for stage, growth in inside],
        "growth_plot": growth_plot(parity, inside) if inside else "",
        "panels_plot": panels_plot(parity, [stage for stage, _ in inside]) if inside else "",
        "depth_plot": depth_plot(parity, ran),
        "depth_stage": most_different(parity, ran).name,
        "tie_rows": [_tie_row(parity.spec, stage, tie) for stage, tie in ties[:NEAR_TIES]],
        "ties": len(ties),
        "worst_rows": [_worst_row(parity.spec, result) for result in worst],
        "coverage_rows": [_coverage_row(row) for row in parity.coverage],
        "tolerance_rows": _tolerance_rows(parity),
        "replays": [failure.reproduction for failure in parity.failures if failure.reproduction is not None],
        "failure_rows": [_failure_row(failure) for failure in parity.failures],
    }


def _failure_row(failure: Failure) -> list[Any]:
    problem = failure.problem
    where = f"iteration {problem.iteration}, {problem.tensor}" if problem.iteration is not None else problem.tensor
    found = f"{problem.text} ({failure.note})" if failure.note else problem.text
    return [failure.stage, failure.case, where, failure.operator or "", found]


def _check(check: Check) -> tuple[str, str]:
    holds = "below" if check.value < check.bound else "not below"
    return check.name, f"{check.value:.4f}, {holds} {check.bound:g}: {check.meaning}"


def _stage_row(spec: LoopSpec, stage: StageResult) -> list[Any]:
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
    return [stage.name, stage.runner, state, counts, case, _tensor(spec, tensor, at), *numbers]


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


def _growth_row(stage: StageResult, growth: Growth) -> list[Any]:
    factor = "none fitted" if growth.factor is None else f"x {growth.factor:.2f}"
    return [stage.name, growth.case, len(growth.errors), factor]


def _tie_row(spec: LoopSpec, stage: str, tie: NearTie) -> list[Any]:
    who = halting(spec)
    what = "whether to halt" if who is not None and tie.decision == who.name else f"which {tie.decision}"
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


def _worst_row(spec: LoopSpec, result: CaseResult) -> list[Any]:
    worst = result.worst
    return [
        result.stage,
        result.case,
        _tensor(spec, worst.tensor, worst.at),
        error_text(worst.error),
        error_text(worst.tolerance),
        f"{worst.used:.0%}",
    ]


def _coverage_row(row: Covered) -> list[str]:
    hit, missed = (", ".join(map(str, values)) for values in (row.hit, row.missed))
    return [row.parameter, spread(row), hit, missed if row.sure or not missed else f"{missed} (depends on the weights)"]


def _tensor(spec: LoopSpec, tensor: str, at: int | None) -> str:
    if at is None:
        return tensor
    part = line(spec, tensor, at - 1)
    return f"{tensor}, {part}" if part else f"{tensor}, iteration {at}"


def _tolerance_rows(parity: Parity) -> list[list[Any]]:
    unit = {tensor.name for tensor in parity.spec.trace if tensor.unit}
    who = halting(parity.spec)
    rows = []
    for name, series in parity.tolerances.tensors.items():
        rows.append([name, "1" if name in unit else "its largest value", *_ends(series)])
    for name, series in parity.tolerances.bands.items():
        scale = f"{who.of}, as it is" if who is not None and name == who.name else "scores"
        rows.append([f"near tie: {name}", scale, *_ends(series)])
    return rows


def _ends(series: tuple[float, ...]) -> list[str]:
    return [error_text(series[0]), error_text(series[-1])]
