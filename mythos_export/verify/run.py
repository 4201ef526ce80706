"""Runs every stage of a bundle that this machine can run, on the golden cases and any others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mythos_export.errors import PackageError, ParityError
from mythos_export.progress import Progress, silent
from mythos_export.verify.compare import Problem, compare, histogram
from mythos_export.verify.generation import Generated, Text, calls, generate
from mythos_export.verify.golden import GOLDEN, Golden, load_golden
from mythos_export.verify.judgement import problems
from mythos_export.verify.locate import producer
from mythos_export.verify.parity import Parity
from mythos_export.verify.reproduction import reproduce
from mythos_export.verify.results import (
    EAGER,
    GRAPH,
    OUTPUTS,
    CaseResult,
    Failure,
    StageResult,
    total,
    with_reproduction,
)
from mythos_export.verify.stages import STAGES, Bundle, Stage
from mythos_export.verify.stages.kernels import kernels_stage
from mythos_export.verify.ties import EXACT_TIE, problem_at_tie
from mythos_export.verify.trace import Trace
from mythos_export.verify.weights import BIT_BY_BIT, compare_weights
from mythos_runtime.errors import BackendFailed, BackendMissing, BundleError
from mythos_runtime.manifest import Manifest

GENERATION = "generation"  # the name of the case that no single call is


def verify_bundle(
    folder: Path,
    manifest: Manifest,
    progress: Progress = silent,
    threads: int | None = None,
    *,
    golden: Golden | None = None,
    reproductions: Path | None = None,
    kernels: bool = False,
    kinds: Sequence[type[Stage]] | None = None,
) -> Parity:
    """Hold every stage to the float64 model's answers.

    Args:
        folder, manifest: the bundle.
        progress: called with the name of each stage as it begins, and with the part of its cases that is done.
        threads: CPU threads of every stage; by default the runner's choice.
        golden: the cases; by default those that the bundle holds.
        reproductions: where a failing stage leaves a reproduction, one folder a stage; None: nowhere.
        kinds: the stages that are opened, where the bundle has them; all by default.
        kernels: whether this machine's operator library is checked by itself, too.

    Raises:
        BundleError: the bundle holds no golden cases.
    """
    golden = golden or load_golden(folder / GOLDEN, manifest.spec)
    bundle = Bundle(folder, manifest, threads)
    results = [_eager(golden)]
    for kind in STAGES if kinds is None else kinds:
        if kind.applies(bundle):
            results.append(_run(kind, bundle, golden, progress, reproductions))
        elif kind.optional:
            reason = f"the bundle was exported without {kind.artifact} (--parts)"
            if kind.artifact in manifest.missing:
                reason = f"{kind.artifact} is missing from the bundle"
            results.append(StageResult(kind.name, kind.runner, kind.artifact, reason=reason))
    if kernels:
        results.append(kernels_stage(progress))
    return Parity(
        golden.spec,
        golden.precision,
        golden.tolerances,
        tuple(results),
        golden.checks,
        total(histogram(case.output("depth"), case.real) for case in golden.cases),
        golden.text,
        tuple(problems(golden, results)),
        golden.coverage,
        golden.apart,
    )


def _run(
    kind: type[Stage],
    bundle: Bundle,
    golden: Golden,
    progress: Progress,
    reproductions: Path | None,
) -> StageResult:
    try:
        lacking = kind.lacking(bundle)
        if lacking is not None:
            return StageResult(kind.name, kind.runner, kind.artifact, reason=lacking)
        progress(_step(kind))
        stage = kind.open(bundle)
    except BackendMissing as error:
        return StageResult(kind.name, kind.runner, kind.artifact, reason=str(error))
    except (ParityError, BundleError, BackendFailed) as error:
        failure = Failure(kind.name, "", Problem(GRAPH, None, str(error)))
        return StageResult(kind.name, kind.runner, kind.artifact, failure=failure)
    try:
        result = _compare(stage, bundle, golden, progress)
        if result.failure is not None and result.failure.case == EXACT_TIE:
            parts = stage.parts(bundle)
            operator = producer(parts, result.failure.problem.tensor) if parts is not None else None
            result = with_reproduction(result, operator, None, "what it decides by is its own: no case holds it")
        elif result.failure is not None and result.failure.case not in (GENERATION, BIT_BY_BIT):
            progress(f"{kind.name}: looking for the operator")
            case = next(case for case in golden.cases if case.name == result.failure.case)
            found = reproduce(stage, bundle, golden, case, result.failure)
            saved, note = None, found.note
            try:
                saved = str(found.save(reproductions, bundle)) if reproductions is not None else None
            except (PackageError, BundleError, OSError) as error:  # the failure itself matters more
                note = "; ".join(filter(None, (note, f"its reproduction could not be saved: {error}")))
            result = with_reproduction(result, found.operator, saved, note)
        return result
    finally:
        stage.close()


def _step(stage: Stage | type[Stage]) -> str:
    return f"{stage.name} ({stage.runner})"


def _compare(stage: Stage, bundle: Bundle, golden: Golden, progress: Progress) -> StageResult:
    results: list[CaseResult] = []
    failure = None
    for index, case in enumerate(golden.cases):
        if not stage.takes(bundle, case.inputs):
            continue
        progress(_step(stage), index / len(golden.cases))
        try:
            answer = stage.answer(case.inputs)
        except (BackendFailed, ParityError) as error:
            failure = Failure(stage.name, case.name, Problem(OUTPUTS, None, str(error)))
            break
        allowed = golden.of(case)
        comparison = compare(case, answer, allowed)
        results.append(CaseResult.of(stage.name, comparison, allowed))
    wrong = next((result for result in results if result.problems), None)
    if wrong is not None:
        failure = Failure(stage.name, wrong.case, wrong.problems[0])
    if failure is None and golden.tie is not None:
        problem = problem_at_tie(bundle.spec, golden.tie, lambda inputs: _watch(stage, bundle, inputs))
        failure = None if problem is None else Failure(stage.name, EXACT_TIE, problem)
    generated = None
    if failure is None and golden.text is not None and _generates(stage, bundle, golden.text):
        generated, problem = _generate(stage, bundle, golden, golden.text)
        failure = None if problem is None else Failure(stage.name, GENERATION, problem)
    reason = None if results or failure else "no case is within what it takes"
    problem, weighed = compare_weights(stage, golden.weights) if golden.weights else (None, ())
    if problem is not None:  # which says more than what comes of it
        failure = Failure(stage.name, BIT_BY_BIT, problem)
    return StageResult(stage.name, stage.runner, stage.artifact, tuple(results), generated, failure, reason, weighed)


def _watch(stage: Stage, bundle: Bundle, inputs: Mapping[str, np.ndarray]) -> Trace | None:
    """The loop of a call; None where the stage does not take or does not show it."""
    return stage.answer(inputs).trace if stage.takes(bundle, inputs) else None


def _generates(stage: Stage, bundle: Bundle, text: Text) -> bool:
    """Whether every call that generation makes is within what the stage takes."""
    return stage.generates and all(stage.takes(bundle, inputs) for inputs in calls(text, bundle.spec))


def _generate(stage: Stage, bundle: Bundle, golden: Golden, text: Text) -> tuple[Generated | None, Problem | None]:
    try:
        generated = generate(stage.outputs, text, bundle.spec, golden.tolerances)
    except (BackendFailed, ParityError) as error:
        return None, Problem(OUTPUTS, None, str(error))
    if not generated.wrong:
        return generated, None
    words = f"generated token {generated.differs_at} is another one than in float64, which was sure of it"
    return generated, Problem("tokens", None, words)


def _eager(golden: Golden) -> StageResult:
    """Eager at the export's precision; it ran when the cases were made."""
    wrong = next((result for result in golden.eager if result.problems), None)
    failure = None
    if wrong is not None:
        problem = wrong.problems[0]
        if golden.precision != "fp32":
            hint = f"the model may need more than {golden.precision}: try fp32"
            problem = replace(problem, text=f"{problem.text}; {hint}")
        failure = Failure(EAGER, wrong.case, problem)
    return StageResult(EAGER, f"PyTorch, {golden.precision}, at export", "the model", golden.eager, None, failure)
