"""What came of single cases and of whole stages; `parity.py` puts them together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mythos_export.verify.compare import Comparison, NearTie, Problem
from mythos_export.verify.generation import Generated
from mythos_export.verify.growth import Growth, fit
from mythos_export.verify.logits import Logits
from mythos_export.verify.tolerances import Tolerances

PASS, FAIL, NOT_RUN = "pass", "fail", "not run"
EAGER = "eager"  # the stage that ran when the cases were made
# In place of a tensor's name: the artifact could not be opened, a call could not be finished.
GRAPH, OUTPUTS = "graph", "outputs"


@dataclass(frozen=True)
class Worst:
    """Where an answer is farthest off in terms of what is allowed; `at` is the iteration or line, from 1, None for
    logits."""

    tensor: str
    at: int | None
    error: float
    tolerance: float

    @property
    def used(self) -> float:
        """The share of the tolerance that was used up."""
        return self.error / self.tolerance


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
    def of(cls, stage: str, comparison: Comparison, tolerances: Tolerances) -> CaseResult:
        case = comparison.case
        logits = case.spec.ports.of("logits").name
        worst = max(
            (
                Worst(name, None if name == logits else index + 1, error, tolerances.of(name, index))
                for name, series in comparison.errors.items()
                for index, error in enumerate(series)
            ),
            key=lambda worst: worst.used,
            default=Worst(logits, None, math.inf, tolerances.of(logits, 0)),  # shapes that cannot be compared
        )
        return cls(
            stage,
            case.name,
            int(case.real.sum()),
            int(comparison.clean.sum()),
            comparison.loops,
            comparison.depths,
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
class Weighed:
    """What came of one file's tensors: how many there are, how many of them are the model's bit by bit, and those that
    were computed of weights and are not among what is known (`derived`)."""

    artifact: str
    tensors: int
    equal: int
    derived: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """The first thing that is wrong in a stage, with where it begins."""

    stage: str
    case: str
    problem: Problem
    operator: str | None = None
    reproduction: str | None = None
    note: str | None = None
    """Why the operator or the reproduction is missing."""

    def describe(self) -> str:
        """In one sentence, without the stage."""
        if self.problem.tensor == GRAPH:
            return f"it cannot be opened: {self.problem.text}"
        note = f" ({self.note})" if self.note else ""
        if self.problem.tensor == OUTPUTS:
            return f"case '{self.case}' cannot be run: {self.problem.text}{note}"
        at = f", iteration {self.problem.iteration}" if self.problem.iteration is not None else ""
        where = f"; it begins at {self.operator}" if self.operator else ""
        return f"case '{self.case}'{at}, tensor {self.problem.tensor}: {self.problem.text}{where}{note}"


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
    weighed: tuple[Weighed, ...] = ()
    """The files whose tensors were compared with the model's."""

    @property
    def state(self) -> str:
        if self.reason is not None:
            return NOT_RUN
        return PASS if self.failure is None else FAIL

    @property
    def worst_result(self) -> CaseResult | None:
        return max(self.results, key=lambda result: result.worst.used, default=None)

    @property
    def worst(self) -> tuple[str, str, int | None, float | None, float | None] | None:
        """Case, tensor, iteration (layer, depth) from 1, error, tolerance: of the failure, else of what uses most of
        its tolerance."""
        if self.failure is not None:
            problem = self.failure.problem
            return self.failure.case, problem.tensor, problem.iteration, problem.error, problem.tolerance
        result = self.worst_result
        if result is None:
            return None
        worst = result.worst
        return result.case, worst.tensor, worst.at, worst.error, worst.tolerance

    @property
    def near_ties(self) -> list[NearTie]:
        return [tie for result in self.results for tie in result.near_ties]

    def growth(self, tensor: str | None) -> Growth | None:
        """Of a tensor's error, in the case with the most iterations; None where the loop was not seen from inside."""
        series = {result.case: result.errors.get(tensor or "", []) for result in self.results}
        deepest = max(series, key=lambda case: len(series[case]), default=None)
        return fit(tensor, deepest, series[deepest]) if tensor and deepest is not None and series[deepest] else None

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

    def to_json(self, state: str | None) -> dict[str, Any]:
        """`state`: the tensor whose growth is told."""
        logits, growth = self.logits, self.growth(state)
        case, tensor, at, error, tolerance = self.worst or (None, None, None, None, None)
        return {
            "name": self.name,
            "runner": self.runner,
            "artifact": self.artifact,
            "state": self.state,
            "reason": self.reason,
            "cases": len(self.results),
            "positions": sum(result.positions for result in self.results),
            "compared": sum(result.compared for result in self.results),
            "worst_case": case,
            "worst_tensor": tensor,
            "worst_at": at,
            "error": error,
            "tolerance": tolerance,
            "logits": logits and asdict(logits),
            "generation": self.generated and self.generated.to_json(),
            "growth": growth and asdict(growth),
            "depths": {str(depth): count for depth, count in self.depths.items()},
            "weights": [asdict(each) for each in self.weighed],
        }


def with_reproduction(
    stage: StageResult, operator: str | None, folder: str | None, note: str | None = None
) -> StageResult:
    """The stage's failure with where it begins and where its reproduction is, or why one of them is missing."""
    assert stage.failure is not None
    return replace(stage, failure=replace(stage.failure, operator=operator, reproduction=folder, note=note))


def total(histograms: Iterable[dict[int, int]]) -> dict[int, int]:
    summed: dict[int, int] = {}
    for each in histograms:
        for depth, count in each.items():
            summed[depth] = summed.get(depth, 0) + count
    return dict(sorted(summed.items()))
