"""One answer against the truth: errors per tensor and iteration, decisions that fell otherwise, and figures of logits.

Positions are compared until a decision of theirs falls otherwise. Where that is a near tie, nobody is wrong, but it is
another function from there on: the position and those after it in its row, which attend to it, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from mythos_export.verify.cases import Case
from mythos_export.verify.tolerances import Tolerances
from mythos_export.verify.trace import AFTER_HALTING, OF_RUNNING, TENSORS, UNIT_SCALE, Answer, Trace


@dataclass(frozen=True)
class NearTie:
    """A decision that fell otherwise than in float64, by less than the precision can tell. Iterations count from 1.

    `possible`: the stage does not show its decisions, and this one may have fallen otherwise.
    """

    case: str
    row: int
    token: int
    iteration: int
    decision: str
    margin: float
    band: float
    possible: bool = False


@dataclass(frozen=True)
class Problem:
    """Something that is wrong. `iteration` counts from 1 and is None outside the loop."""

    tensor: str
    iteration: int | None
    text: str
    error: float | None = None
    tolerance: float | None = None
    position: tuple[int, int] | None = None


@dataclass(frozen=True)
class Logits:
    """How far the logits are off at the compared positions: absolute, relative L2, KL(truth || found) in nats."""

    max_abs: float
    p99_abs: float
    relative_l2: float
    kl: float
    top1_agreement: float


@dataclass
class Comparison:
    """The errors of one answer. `errors[tensor][i]` is relative to the tensor's scale; i is the iteration for what is
    inside the loop, the layer for `new_layers`, the depth for `new_loop`, 0 for `logits`."""

    case: Case
    errors: dict[str, list[float]] = field(default_factory=dict)
    worst: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    near_ties: list[NearTie] = field(default_factory=list)
    clean: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    logits: Logits | None = None


def compare(case: Case, answer: Answer, allowed: Tolerances | None, prelude: int) -> Comparison:
    """Hold an answer against its case. Without tolerances every turned decision counts as a near tie: to measure.

    `prelude` is the number of prelude layers: their cache entries come before the loop, the other layers' after it.
    The problems are in the order of the dataflow, so that the first is where it begins.
    """
    return _Walk(case, answer, allowed, prelude).run()


_TURNED = {"experts": "other experts are chosen", "halted": "halts otherwise", "depth": "depth differs"}


class _Walk:
    """Follows the dataflow, with the set of positions that are still comparable."""

    def __init__(self, case: Case, answer: Answer, allowed: Tolerances | None, prelude: int) -> None:
        self.case, self.answer, self.allowed, self.prelude = case, answer, allowed, prelude
        self.found = Comparison(case)
        self.tainted = ~case.real

    def run(self) -> Comparison:
        case, outputs = self.case, self.answer.outputs
        layers = range(len(case.outputs["new_layers"]))
        if self._has_other_shapes(None, outputs, case.outputs):
            return self.found
        if self.answer.trace is None:
            self._leave_out_possible_ties()
        self._rows("new_layers", [layer for layer in layers if layer < self.prelude])
        if self.answer.trace is not None:
            for iteration in range(min(len(self.answer.trace), len(case.trace))):
                if not self._iteration(self.answer.trace, iteration):
                    return self.found
        self._loops()
        turned = (outputs["depth"] != case.outputs["depth"]) & ~self.tainted
        for row, token in np.argwhere(turned)[:1]:
            text = f"depth is {outputs['depth'][row, token]}, in float64 {case.outputs['depth'][row, token]}"
            self._problem("depth", None, f"{text}, at {int(turned.sum())} positions", position=(int(row), int(token)))
        self._rows("new_loop", range(len(case.outputs["new_loop"])))
        self._rows("new_layers", [layer for layer in layers if layer >= self.prelude])
        self._error("logits", 0, outputs["logits"], case.outputs["logits"])
        self.found.clean = ~self.tainted
        self.found.logits = _logits(outputs["logits"], case.outputs["logits"], self.found.clean)
        return self.found

    def _has_other_shapes(
        self, iteration: int | None, found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
    ) -> bool:
        """Whether something cannot even be compared; arrays that numpy would broadcast are among it."""
        for name, array in expected.items():
            if found[name].shape != array.shape:
                text = f"{name} has shape {list(found[name].shape)}, expected {list(array.shape)}"
                self._problem(name, iteration, text)
                return True
        return False

    def _iteration(self, trace: Trace, iteration: int) -> bool:
        """Compare one iteration; False where the shapes are others."""
        truth = self.case.trace
        found = {name: array[iteration] for name, array in trace.arrays.items()}
        expected = {name: array[iteration] for name, array in truth.arrays.items()}
        if self._has_other_shapes(iteration + 1, found, expected):
            return False
        # The chosen are a set: two with equal logits may come in either order, each with its own weight.
        found["experts"], found["weights"] = _by_expert(found["experts"], found["weights"])
        expected["experts"], expected["weights"] = _by_expert(expected["experts"], expected["weights"])
        running = ~truth.halted[iteration - 1] if iteration else self.case.real
        for name in TENSORS:
            if name == "experts":
                differs = (found[name] != expected[name]).any(-1)
                self._decision(name, iteration, differs & running, self.case.routing_margin[iteration])
                self._decision(name, iteration, differs & ~running, self.case.routing_margin[iteration], AFTER_HALTING)
            elif name == "halted":
                self._decision(name, iteration, found[name] != expected[name], self.case.halting_margin[iteration])
            elif name == "depth":
                self._decision(name, iteration, found[name] != expected[name], None)
            else:
                self._error(name, iteration, found[name], expected[name], running if name in OF_RUNNING else None)
        return True

    def _decision(
        self, name: str, iteration: int, differs: np.ndarray, margin: np.ndarray | None, kind: str = ""
    ) -> None:
        differs = differs & ~self.tainted
        band = math.inf if self.allowed is None else self.allowed.band(kind or name, iteration)
        for row, token in np.argwhere(differs):
            if self.tainted[row, token]:
                continue
            gap = float(margin[row, token]) if margin is not None else None
            if gap is not None and gap < band:
                tie = NearTie(self.case.name, int(row), int(token), iteration + 1, kind or name, gap, band)
                self.found.near_ties.append(tie)
            else:
                text, at = _TURNED[name], (int(row), int(token))
                if gap is not None and math.isfinite(gap):
                    self._problem(name, iteration + 1, f"{text}, {gap:.1e} away from a tie", gap, band, at)
                else:
                    self._problem(name, iteration + 1, text, position=at)
            self.tainted[row, token:] = True

    def _leave_out_possible_ties(self) -> None:
        """Without a look inside, a decision that may have fallen otherwise cannot be told from an error."""
        if self.allowed is None:
            return
        for tie in possible_ties(self.case, self.allowed):
            if not self.tainted[tie.row, tie.token]:
                self.found.near_ties.append(tie)
                self.tainted[tie.row, tie.token :] = True

    def _loops(self) -> None:
        outputs, inputs = self.answer.outputs, self.case.inputs
        found = int(outputs["loops"])
        expected = int(self.case.outputs["loops"])
        if (self.tainted & self.case.real).any() and bool(inputs["early_exit"]):
            expected = int(outputs["depth"][self.case.real].max())  # what its own decisions ask for
        if found != expected:
            self._problem("loops", min(found, expected) + 1, f"ran {found} loops, {expected} were due")
        elif self.answer.trace is not None and len(self.answer.trace) != found:
            self._problem("loops", None, f"counted {found} loops and ran {len(self.answer.trace)}")

    def _rows(self, name: str, rows: range | list[int]) -> None:
        for row in rows:
            self._error(name, row, self.answer.outputs[name][row], self.case.outputs[name][row])

    def _error(
        self, name: str, index: int, found: np.ndarray, expected: np.ndarray, of: np.ndarray | None = None
    ) -> None:
        """Largest difference at comparable positions (among `of`) over the scale; found and expected are [B, T] or
        [B, T, W]."""
        clean = ~self.tainted if of is None else ~self.tainted & of
        error = 0.0
        if clean.any():
            difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
            if difference.ndim == 3:
                difference = difference.max(-1)
            difference = np.where(clean, difference, -1.0)
            scale = 1.0 if name in UNIT_SCALE else float(np.abs(expected[clean].astype(np.float64)).max()) or 1.0
            worst = np.argmax(np.where(np.isnan(difference), np.inf, difference))
            row, token = (int(i) for i in np.unravel_index(worst, difference.shape))
            error = float(difference[row, token]) / scale
            error = math.inf if math.isnan(error) else error
            self.found.worst[name, index] = (row, token)
        series = self.found.errors.setdefault(name, [])
        series += [0.0] * (index + 1 - len(series))
        series[index] = error
        limit = math.inf if self.allowed is None else self.allowed.of(name, index)
        if not (error <= limit and math.isfinite(error)):
            iteration = index + 1 if name in TENSORS else None
            amount = f"differs by {error:.1e} of its scale" if math.isfinite(error) else "holds NaN or infinite values"
            part = {"new_layers": f" of layer {index}", "new_loop": f" of depth {index + 1}"}.get(name, "")
            self._problem(
                name,
                iteration,
                f"{name}{part} {amount}, allowed {limit:.1e}",
                error,
                limit,
                self.found.worst[name, index],
            )

    def _problem(
        self,
        tensor: str,
        iteration: int | None,
        text: str,
        error: float | None = None,
        tolerance: float | None = None,
        position: tuple[int, int] | None = None,
    ) -> None:
        self.found.problems.append(Problem(tensor, iteration, text, error, tolerance, position))


def possible_ties(case: Case, allowed: Tolerances) -> Iterator[NearTie]:
    """The decisions of a case that are nearer to a tie than the precision can tell, iteration by iteration.

    A halted position's experts are no longer its answer, but the next iteration's cache entries come from them, to
    which other positions attend.
    """
    steps = len(case.trace)
    for iteration in range(steps):
        running = case.real & ~case.trace.halted[iteration - 1] if iteration else case.real
        waiting = case.real & ~running if iteration + 1 < steps else np.zeros_like(running)
        routing, halting = case.routing_margin[iteration], case.halting_margin[iteration]
        for name, margin, of in (
            ("experts", routing, running),
            (AFTER_HALTING, routing, waiting),
            ("halted", halting, running),
        ):
            band = allowed.band(name, iteration)
            for row, token in np.argwhere((margin < band) & of):
                gap = float(margin[row, token])
                yield NearTie(case.name, int(row), int(token), iteration + 1, name, gap, band, possible=True)


def _by_expert(experts: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = experts.argsort(-1, kind="stable")
    return np.take_along_axis(experts, order, -1), np.take_along_axis(weights, order, -1)


def _logits(found: np.ndarray, expected: np.ndarray, clean: np.ndarray) -> Logits | None:
    if not clean.any():
        return None
    f, e = found[clean].astype(np.float64), expected[clean].astype(np.float64)
    off = np.abs(f - e)
    if not np.isfinite(off).all():
        return None
    log_f, log_e = (x - _log_sum_exp(x) for x in (f, e))
    return Logits(
        float(off.max()),
        float(np.quantile(off, 0.99)),
        float(np.linalg.norm(f - e) / (np.linalg.norm(e) or 1.0)),
        float((np.exp(log_e) * (log_e - log_f)).sum(-1).mean()),
        float((f.argmax(-1) == e.argmax(-1)).mean()),
    )


def _log_sum_exp(x: np.ndarray) -> np.ndarray:
    top = x.max(-1, keepdims=True)
    total: np.ndarray = top + np.log(np.exp(x - top).sum(-1, keepdims=True))
    return total
