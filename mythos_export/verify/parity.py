"""The outcome of a verification, for programs and for people.

`Parity.to_json` is what `reports/parity.json` and `mythos verify --json` hold (format 4):

    format            4
    verdict           "pass" or "fail"
    sentence          the verdict in words
    precision         fp32, fp16, bf16, int8 or int4
    truth             what the stages are held to
    scope             what was verified in place of the whole model (a reduced twin of it), or null
    stages            a list, in the order of the pipeline:
      name, runner, artifact
      state, reason     "pass", "fail", or "not run" with the reason, else null
      cases             how many were run
      positions, compared         real positions in them, and those not behind a near tie
      worst_case, worst_tensor    the failure's, or else where most of what is allowed is used
      worst_at          iteration of it, or line of a cache (a layer; depth by depth its slots), from 1; null for logits
      error, tolerance  there, relative to the tensor's largest value (of probabilities and expert weights, absolute);
                        null for what has none: a graph that cannot be opened, a number of loops, a generated token
      logits            over all cases: max_abs, p99_abs, relative_l2, kl (nats), top1_agreement; null without any
      generation        tokens, first_difference (from 1, or null), near_tie; null where nothing was generated
      growth            tensor, case, errors per iteration, factor per iteration (fitted, or null);
                        null where the loop was not seen from inside
      depths            {depth: positions} of that stage
      weights           per file that it holds tensors of: artifact, tensors, equal (of them, to the model's, bit by
                        bit), derived (names of those that were computed of weights: the cases compare them)
    whole             with a scope: stages of the model itself, as in stages
    depths            {depth: positions} of float64, in all cases; a stage may have run fewer of them
    near_ties         total, and in `listed` the first MOST_LISTED: stage, case, row, token, iteration, decision,
                      margin, band, possible (true: the stage does not show whether it fell otherwise)
    failures          per failed stage: stage, case ("" before the first), tensor, iteration (from 1, or null),
                      operator (or null), text, error, tolerance (or null), position ([row, token], or null),
                      reproduction (a folder, or null), note (why one of these is missing, or null)
    problems          sentences: what is wrong beyond single stages; any makes the verdict "fail"
    basis             how much a pass rests on: precision; stage that left out the largest share of its positions, its
                      positions and left_out ones; near_ties over the stages; tensor that may be off the most and its
                      tolerance, a share of its scale; deep, the same of cases far beyond the trained depth, which are
                      judged apart; weak, sentences that say why that is little, or none
    coverage          of the cases, a list: parameter, least, most (null where it is no number), hit and missed of its
                      boundaries, sure (false: it depends on the weights, and a missed one is no failure)
    checks            of the model's weights: name, value, bound, meaning; a value that is not below its bound fails
    tolerances        factor, floor, tensors {name: series}, near_tie_bands {decision: series}
    text              prompt, tokens, margins and ties of the float64 model's greedy continuation, or null
    cases             stage, case, positions, compared, loops, errors {tensor: series}

Numbers that are not finite are null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mythos_export.errors import ParityError
from mythos_export.verify.coverage import Covered
from mythos_export.verify.generation import Text
from mythos_export.verify.judgement import Basis, basis
from mythos_export.verify.results import FAIL, NOT_RUN, PASS, CaseResult, Failure, StageResult
from mythos_export.verify.tolerances import Tolerances
from mythos_export.verify.trace import state
from mythos_model.state import Check
from mythos_runtime.spec import LoopSpec

FORMAT = 4
TRUTH = "eager PyTorch in float64, with the export's weights"
MOST_LISTED = 50


@dataclass(frozen=True)
class Parity:
    """What was compared, and how it went."""

    spec: LoopSpec
    precision: str
    tolerances: Tolerances
    stages: tuple[StageResult, ...]
    checks: tuple[Check, ...]
    depths: dict[int, int]
    text: Text | None = None
    problems: tuple[str, ...] = field(default=())
    """What is wrong beyond single stages."""
    coverage: tuple[Covered, ...] = field(default=())
    apart: Mapping[str, Tolerances] = field(default_factory=dict)
    """By case far beyond the trained depth, its own tolerances."""
    whole: tuple[StageResult, ...] = ()
    """Where `stages` are those of a reduced twin: what of the model itself was compared."""
    scope: str | None = None
    """What was verified in place of the whole model, in a sentence; None where it was the whole."""

    @property
    def passed(self) -> bool:
        return not self.problems and all(stage.state != FAIL for stage in (*self.stages, *self.whole))

    @property
    def failures(self) -> list[Failure]:
        return [stage.failure for stage in (*self.stages, *self.whole) if stage.failure is not None]

    @property
    def results(self) -> list[CaseResult]:
        return [result for stage in (*self.stages, *self.whole) for result in stage.results]

    @property
    def basis(self) -> Basis:
        return basis(self.spec, self.tolerances, self.stages, self.apart)

    def verdict(self) -> str:
        """In a sentence, and of a pass how much it rests on."""
        ran = [stage for stage in (*self.stages, *self.whole) if stage.state != NOT_RUN]
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
            f"{used:.0%} of what {self.precision} allows. {self.basis.sentence()}{rest}"
            + (f" {self.scope}" if self.scope else "")
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
        document: dict[str, Any] = _finite(
            {
                "format": FORMAT,
                "verdict": PASS if self.passed else FAIL,
                "sentence": self.verdict(),
                "precision": self.precision,
                "truth": TRUTH,
                "scope": self.scope,
                "stages": [stage.to_json(state(self.spec)) for stage in self.stages],
                "whole": [stage.to_json(state(self.spec)) for stage in self.whole],
                "depths": {str(depth): count for depth, count in self.depths.items()},
                "near_ties": {"total": len(ties), "listed": ties[:MOST_LISTED]},
                "failures": [_failure(failure) for failure in self.failures],
                "problems": list(self.problems),
                "basis": asdict(self.basis) | {"weak": self.basis.weak()},
                "coverage": [asdict(row) for row in self.coverage],
                "checks": [check._asdict() for check in self.checks],
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
        return document


def summary(parity: Parity) -> dict[str, Any]:
    """`to_json` without the series of every case."""
    return {name: value for name, value in parity.to_json().items() if name not in ("cases", "tolerances", "text")}


def _failure(failure: Failure) -> dict[str, Any]:
    problem = asdict(failure.problem)
    position = failure.problem.position
    return (
        {"stage": failure.stage, "case": failure.case, "operator": failure.operator}
        | problem
        | {"position": list(position) if position else None}
        | {"reproduction": failure.reproduction, "note": failure.note}
    )


def _finite(value: Any) -> Any:
    """JSON has no infinities: null instead."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
