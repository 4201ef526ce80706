"""The outcome of a verification, for programs and for people.

`Parity.to_json` is what `reports/parity.json` and `mythos verify --json` hold (format 2):

    verdict           "pass" or "fail"
    precision         fp32, fp16 or bf16
    truth             what the stages are held to
    stages            a list, in the order of the pipeline:
      name, runner, artifact
      state             "pass", "fail", or "not run", with the `reason`
      cases             how many were run
      positions, compared   real positions in them, and those not behind a near tie
      worst_case, worst_tensor   where the error is largest in terms of what is allowed
      worst_at          iteration, layer or depth of it, from 1; null for logits
      error, tolerance  there, relative to the tensor's largest value
      logits            over all cases: max_abs, p99_abs, relative_l2, kl (nats), top1_agreement; null without any
      generation        tokens, first_difference (from 1, or null), near_tie; null where nothing was generated
      growth            case, errors of h per iteration, factor per iteration (fitted, or null); null without a look inside
      depths            {depth: positions} of that stage
    depths            {depth: positions} of float64, in the cases that every stage ran
    near_ties         total, and the first MOST_LISTED: stage, case, row, token, iteration, decision, margin, band
    failures          per failed stage: stage, case, tensor, iteration (from 1, or null), operator, position [row, token],
                      text, error, tolerance, reproduction (a folder, or null)
    spectral_radius   of the injection; below 1, or the verdict is "fail"
    tolerances        factor, floor, tensors {name: series}, near_tie_bands {decision: series}
    cases             stage, case, positions, compared, loops, errors {tensor: series}

Numbers that are not finite are null.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from mythos_export.errors import ParityError
from mythos_export.verify.compare import Comparison, Logits, NearTie, Problem
from mythos_export.verify.generation import Generated, Text
from mythos_export.verify.growth import Growth, fit
from mythos_export.verify.tolerances import Tolerances

FORMAT = 2
TRUTH = "eager PyTorch in float64, with the export's weights"
MOST_LISTED = 50
PASS, FAIL, NOT_RUN = "pass", "fail", "not run"


@dataclass(frozen=True)
class Worst:
    """Where an answer is farthest off in terms of what is allowed; `index` counts from 0."""

    tensor: str
    index: int
    error: float
    tolerance: float

    @property
    def used(self) -> float:
        """The share of the tolerance that was used up."""
        return self.error / self.tolerance

    @property
    def at(self) -> int | None:
        return None if self.tensor == "logits" else self.index + 1


@dataclass(frozen=True)
class CaseResult:
    """One case on one stage; the problems are in the order of the dataflow."""

    stage: str
    case: str
    positions: int
    compared: int
    loops: int
    depths: dict[int, int]
    errors: dict[str, list[float]]
    worst: Worst
    logits: Logits | None
    near_ties: tuple[NearTie, ...] = ()
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, stage: str, comparison: Comparison, outputs: Any, tolerances: Tolerances) -> CaseResult:
        case = comparison.case
        worst = max(
            (
                Worst(name, index, error, tolerances.of(name, index))
                for name, series in comparison.errors.items()
                for index, error in enumerate(series)
            ),
            key=lambda worst: worst.used,
        )
        return cls(
            stage,
            case.name,
            int(case.real.sum()),
            int(comparison.clean.sum()),
            int(outputs["loops"]),
            histogram(outputs["depth"][case.real]),
            comparison.errors,
            worst,
            comparison.logits,
            tuple(comparison.near_ties),
            tuple(comparison.problems),
        )


    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CaseResult:
        """The result that `to_json` gave, read back from JSON."""
        plain = {name: data[name] for name in ("stage", "case", "positions", "compared", "loops", "errors")}
        return cls(
            **plain,
            depths={int(depth): count for depth, count in data["depths"].items()},
            worst=Worst(**data["worst"]),
            logits=Logits(**data["logits"]) if data["logits"] else None,
            near_ties=tuple(NearTie(**tie) for tie in data["near_ties"]),
            problems=tuple(Problem(**problem) for problem in data["problems"]),
        )


@dataclass(frozen=True)
class Failure:
    """The first thing that is wrong in a stage, with where it begins."""

    stage: str
    case: str
    problem: Problem
    operator: str | None = None
    reproduction: str | None = None

    def describe(self) -> str:
        at = f", iteration {self.problem.iteration}" if self.problem.iteration is not None else ""
        where = f"; it begins at {self.operator}" if self.operator else ""
        return f"case '{self.case}'{at}, tensor {self.problem.tensor}: {self.problem.text}{where}"


@dataclass(frozen=True)
class StageResult:
    """One stage over all cases, or the reason why it was not run."""

    name: str
    runner: str
    artifact: str
    results: tuple[CaseResult, ...] = ()
    generated: Generated | None = None
    failure: Failure | None = None
    reason: str | None = None

    @property
    def state(self) -> str:
        if self.reason is not None:
            return NOT_RUN
        return PASS if self.failure is None else FAIL

    @property
    def worst_result(self) -> CaseResult | None:
        return max(self.results, key=lambda result: result.worst.used, default=None)

    @property
    def near_ties(self) -> list[NearTie]:
        return [tie for result in self.results for tie in result.near_ties]

    @property
    def growth(self) -> Growth | None:
        """Of the case with the most iterations."""
        inside = [result for result in self.results if result.errors.get("h")]
        deepest = max(inside, key=lambda result: len(result.errors["h"]), default=None)
        return None if deepest is None else fit(deepest.case, deepest.errors["h"])

    @property
    def logits(self) -> Logits | None:
        """The worst over the cases, figure by figure."""
        found = [asdict(result.logits) for result in self.results if result.logits is not None]
        if not found:
            return None
        largest = {name: max(each[name] for each in found) for name in found[0]}
        return Logits(**largest | {"top1_agreement": min(each["top1_agreement"] for each in found)})

    @property
    def depths(self) -> dict[int, int]:
        return total(result.depths for result in self.results)

    def to_json(self) -> dict[str, Any]:
        worst, logits, growth = self.worst_result, self.logits, self.growth
        return {
            "name": self.name,
            "runner": self.runner,
            "artifact": self.artifact,
            "state": self.state,
            "reason": self.reason,
            "cases": len(self.results),
            "positions": sum(result.positions for result in self.results),
            "compared": sum(result.compared for result in self.results),
            "worst_case": worst and worst.case,
            "worst_tensor": worst and worst.worst.tensor,
            "worst_at": worst and worst.worst.at,
            "error": worst and worst.worst.error,
            "tolerance": worst and worst.worst.tolerance,
            "logits": logits and asdict(logits),
            "generation": self.generated and self.generated.to_json(),
            "growth": growth and asdict(growth),
            "depths": {str(depth): count for depth, count in self.depths.items()},
        }


@dataclass(frozen=True)
class Parity:
    """What was compared, and how it went."""

    precision: str
    tolerances: Tolerances
    stages: tuple[StageResult, ...]
    spectral_radius: float
    depths: dict[int, int]
    text: Text | None = None
    problems: tuple[str, ...] = field(default=())
    """What is wrong beyond single stages."""

    @property
    def passed(self) -> bool:
        return not self.problems and all(stage.state != FAIL for stage in self.stages)

    @property
    def failures(self) -> list[Failure]:
        return [stage.failure for stage in self.stages if stage.failure is not None]

    @property
    def results(self) -> list[CaseResult]:
        return [result for stage in self.stages for result in stage.results]

    def verdict(self) -> str:
        """In one sentence."""
        ran = [stage for stage in self.stages if stage.state != NOT_RUN]
        if self.problems:
            return self.problems[0]
        if self.failures:
            first = self.failures[0]
            return f"Stage {first.stage} does not compute what the eager model computes: {first.describe()}."
        used = max((result.worst.used for result in self.results), default=0.0)
        left = [stage.name for stage in self.stages if stage.state == NOT_RUN]
        rest = f" Not run here: {', '.join(left)}." if left else ""
        return (
            f"{len(ran)} stages compute what the eager model computes, inside the loop too; the largest error is "
            f"{used:.0%} of what {self.precision} allows.{rest}"
        )

    def raise_unless_passed(self) -> None:
        """ParityError that names the stage, the case, the iteration, the tensor and the operator."""
        if self.passed:
            return
        text = self.verdict().rstrip(".")
        kept = [failure.reproduction for failure in self.failures if failure.reproduction is not None]
        if kept:
            text += f". Replay it with: mythos verify --repro {kept[0]}"
        raise ParityError(text[0].lower() + text[1:])

    def to_json(self) -> dict[str, Any]:
        ties = [{"stage": stage.name} | asdict(tie) for stage in self.stages for tie in stage.near_ties]
        return _finite(
            {
                "format": FORMAT,
                "verdict": PASS if self.passed else FAIL,
                "sentence": self.verdict(),
                "precision": self.precision,
                "truth": TRUTH,
                "stages": [stage.to_json() for stage in self.stages],
                "depths": {str(depth): count for depth, count in self.depths.items()},
                "near_ties": {"total": len(ties), "listed": ties[:MOST_LISTED]},
                "failures": [_failure(failure) for failure in self.failures],
                "problems": list(self.problems),
                "spectral_radius": self.spectral_radius,
                "tolerances": self.tolerances.to_json(),
                "text": self.text and asdict(self.text),
                "cases": [
                    {
                        "stage": result.stage,
                        "case": result.case,
                        "positions": result.positions,
                        "compared": result.compared,
                        "loops": result.loops,
                        "errors": result.errors,
                    }
                    for result in self.results
                ],
            }
        )


def summary(parity: Parity) -> dict[str, Any]:
    """`to_json` without the series of every case."""
    return {name: value for name, value in parity.to_json().items() if name not in ("cases", "tolerances", "text")}


def with_reproduction(stage: StageResult, operator: str | None, folder: str | None) -> StageResult:
    """The stage's failure with where it begins and where its reproduction lies."""
    assert stage.failure is not None
    return replace(stage, failure=replace(stage.failure, operator=operator, reproduction=folder))


def histogram(depths: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(depths, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def total(histograms: Iterable[dict[int, int]]) -> dict[int, int]:
    summed: dict[int, int] = {}
    for each in histograms:
        for depth, count in each.items():
            summed[depth] = summed.get(depth, 0) + count
    return dict(sorted(summed.items()))


def _failure(failure: Failure) -> dict[str, Any]:
    problem = asdict(failure.problem)
    position = failure.problem.position
    return (
        {"stage": failure.stage, "case": failure.case, "operator": failure.operator}
        | problem
        | {"position": list(position) if position else None, "reproduction": failure.reproduction}
    )


def _finite(value: Any) -> Any:
    """JSON has no infinities: null instead."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
