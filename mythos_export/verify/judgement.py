"""What the stages' results amount to: what is wrong beyond single stages, and how much a verdict rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mythos_export.verify.coverage import DEEP, missed
from mythos_export.verify.golden import Golden
from mythos_export.verify.results import EAGER, NOT_RUN, StageResult
from mythos_export.verify.tolerances import Tolerances
from mythos_runtime.spec import LoopSpec

# The share of a stage's positions that near ties may take out of sight before its check counts as none, or as weak.
MOST_UNSEEN = 0.5
WEAK_UNSEEN = 0.1
# Of a tensor's scale: where eager's own error asks for more, the precision is no check, or a weak one.
MOST_TOLERANCE = 0.5
WEAK_TOLERANCE = 0.1


@dataclass(frozen=True)
class Basis:
    """How much a verdict rests on.

    Attributes:
        stage: that left out the largest share of its positions; "" where none but the eager one ran.
        positions, left_out: of that stage, real ones and those behind near ties.
        near_ties: over the stages.
        tensor, tolerance: what may be off the most, as a share of its scale.
        deep: the same far beyond the trained depth, which is judged apart; 0 where there is no such case.
    """

    precision: str
    stage: str
    positions: int
    left_out: int
    near_ties: int
    tensor: str
    tolerance: float
    deep: float = 0.0

    def weak(self) -> list[str]:
        """Why a pass says little, in words; nothing where it does not."""
        found = [] if self.stage else ["nothing that was exported was run here"]
        if self.left_out > WEAK_UNSEEN * self.positions:
            found.append(f"{self.precision} leaves more than {WEAK_UNSEEN:.0%} of the positions of a stage unjudged")
        if self.tolerance > WEAK_TOLERANCE:
            found.append(f"{self.precision} has to allow more than {WEAK_TOLERANCE:.0%} of a tensor's scale")
        if self.deep > MOST_TOLERANCE:
            found.append(f"{self.precision} has to allow more than {MOST_TOLERANCE:.0%} of a tensor's scale {DEEP}")
        return found

    def sentence(self) -> str:
        judged = "Every position was judged" if self.stage else "No position was judged"
        if self.left_out:
            judged = (
                f"{self.left_out} of {self.positions} positions depend on near ties and could not be judged "
                f"(in stage {self.stage}; {self.near_ties} near ties in all)"
            )
        weak = self.weak()
        limit = f"what is allowed is at most {self.tolerance:.1e} of a tensor's scale ({self.tensor})"
        if self.deep:
            limit += f", {DEEP} {self.deep:.1e}"
        return f"{judged}; {limit}." + (f" That is weak: {', and '.join(weak)}." if weak else "")


def basis(
    spec: LoopSpec, tolerances: Tolerances, stages: Sequence[StageResult], apart: Mapping[str, Tolerances]
) -> Basis:
    ran = [stage for stage in stages if stage.state != NOT_RUN and stage.name != EAGER]
    seen = [(stage.name, *_positions(stage)) for stage in ran]
    name, real, judged = max(seen, key=lambda each: (each[1] - each[2]) / max(each[1], 1), default=("", 0, 0))
    tensor, tolerance = _loosest(spec, tolerances)
    ties = sum(len(stage.near_ties) for stage in ran)
    deep = _loosest(spec, apart[DEEP])[1] if DEEP in apart else 0.0
    return Basis(tolerances.precision, name, real, real - judged, ties, tensor, tolerance, deep)


def problems(golden: Golden, stages: Sequence[StageResult]) -> list[str]:
    """What is wrong beyond single stages, in sentences."""
    found = [
        f"{check.name} is {check.value:.6g}, and has to be below {check.bound:g}: {check.meaning}"
        for check in golden.checks
        if not check.value < check.bound
    ]
    found += missed(golden.coverage)
    if any(stage.failure is not None for stage in stages):
        return found  # which says more
    advice = "" if golden.precision == "fp32" else "; export with --precision fp32"
    tensor, allowed = _loosest(golden.spec, golden.tolerances)
    if allowed > MOST_TOLERANCE:
        found.append(
            f"{golden.precision} is too coarse for this model: by what eager itself errs, {tensor} could be off by "
            f"{allowed:.1e} of its scale, and beyond {MOST_TOLERANCE} nothing is checked{advice}"
        )
    for stage in stages:
        real, seen = _positions(stage)
        if stage.name != EAGER and seen < (1 - MOST_UNSEEN) * real:
            found.append(
                f"only {seen} of {real} positions could be compared in stage {stage.name}, the others depend on "
                f"decisions nearer to a tie than {golden.precision} can tell apart{advice}"
            )
    return found


def _positions(stage: StageResult) -> tuple[int, int]:
    """Real positions of all its cases, and those that were compared."""
    return sum(result.positions for result in stage.results), sum(result.compared for result in stage.results)


def _loosest(spec: LoopSpec, tolerances: Tolerances) -> tuple[str, float]:
    """The tensor that may be off the most, and by how much of its scale.

    Not what a loop caches: that is also of positions that have halted, whose state no output of their own depends on
    and no precision follows. Where another position reads it, what that makes of it is judged.
    """
    apart = {spec.ports.of("new", group.name).name for group in spec.caches if group.per_loop}
    largest = {name: max(series) for name, series in tolerances.tensors.items() if name not in apart}
    return max(largest.items(), key=lambda each: each[1], default=("", 0.0))
