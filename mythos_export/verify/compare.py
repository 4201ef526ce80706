"""One answer against the truth: errors per tensor and iteration, decisions that fell otherwise, and figures of logits.

Positions are compared until a decision of theirs falls otherwise. Where that is a near tie, nobody is wrong, but it is
another function from there on: the position and those after it in its row, which attend to it, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from mythos_export.verify.cases import Case
from mythos_export.verify.logits import Logits, logits_apart
from mythos_export.verify.tolerances import Tolerances
from mythos_export.verify.trace import AFTER_HALTING, Answer, Trace, decisions, halting
from mythos_model.cache_lines import rounded_parts
from mythos_runtime.spec import LoopSpec, TraceTensor


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


@dataclass
class Comparison:
    """The errors of one answer. `errors[tensor][i]` is relative to the tensor's scale; i is the iteration for what is
    inside the loop, the line for new cache entries, 0 for logits."""

    case: Case
    loops: int
    depths: dict[int, int]
    """Of depth -> positions."""
    errors: dict[str, list[float]] = field(default_factory=dict)
    worst: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    near_ties: list[NearTie] = field(default_factory=list)
    clean: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    logits: Logits | None = None


def compare(case: Case, answer: Answer, allowed: Tolerances | None) -> Comparison:
    """Hold an answer against its case. Without tolerances every turned decision counts as a near tie: to measure.

    The problems are in the order of the dataflow, so that the first is where it begins.
    """
    return _Walk(case, answer, allowed).run()


_UNMOVED = 0.1  # of the distance to the rounded model: so near to the other one is only what does not round
_TURNED = {"choice": "other {} are chosen", "halted": "halts otherwise", "count": "{} differs"}


class _Walk:
    """Follows the dataflow, with the set of positions that are still comparable."""

    def __init__(self, case: Case, answer: Answer, allowed: Tolerances | None) -> None:
        self.case, self.answer, self.allowed, self.spec = case, answer, allowed, case.spec
        self.traced = {tensor.name: tensor for tensor in case.spec.trace}
        self.halting = halting(case.spec)
        self.found = Comparison(case, int(self._output("loops")), histogram(self._output("depth"), case.real))
        self.tainted = ~case.real

    def run(self) -> Comparison:
        case, outputs, ports = self.case, self.answer.outputs, self.spec.ports
        if self._has_other_shapes(None, outputs, case.outputs):
            return self.found
        if self.answer.trace is None:
            self._leave_out_possible_ties()
        self._entries(before=True)
        if self.answer.trace is not None:
            for iteration in range(min(len(self.answer.trace), len(case.trace))):
                if not self._iteration(self.answer.trace, iteration):
                    return self.found
        self._loops()
        self._depth()
        self._entries(before=False)
        logits = ports.of("logits").name
        self._error(logits, 0, outputs[logits], case.outputs[logits])
        self.found.clean = ~self.tainted
        self._rounds()
        self.found.logits = logits_apart(outputs[logits], case.outputs[logits], self.found.clean)
        return self.found

    def _rounds(self) -> None:
        """Where activations or cache lines are to be rounded, tolerances are wide enough for an artifact that rounds
        none. That one's logits are those of the model that rounds none; what rounds otherwise than float64 does is as
        far from both."""
        clean = self.found.clean
        what = "cache lines" if self.spec.int8_cache else "activations"
        for name, plain in self.case.unrounded.items():
            found = self.answer.outputs[name][clean].astype(np.float64)
            off = np.linalg.norm(found - self.case.outputs[name][clean])
            if np.linalg.norm(found - plain[clean]) < _UNMOVED * off:
                self._problem(name, None, f"{name} are those of a model that rounds no {what}")

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
        for side in (found, expected):
            self._sort_choices(side)
        running = self.case.real
        if self.halting is not None and iteration:
            running = ~truth[self.halting.name][iteration - 1]
        for name, tensor in self.traced.items():
            if tensor.kind in ("value", "chosen"):
                self._error(name, iteration, found[name], expected[name], running if tensor.until_halted else None)
                continue
            differs, margin = found[name] != expected[name], self.case.margins.get(name)
            if tensor.kind == "choice":
                self._is_choice(tensor, iteration, found[name])
                differs = differs.any(-1)
                self._decision(tensor, iteration, differs & running, margin)
                if not tensor.until_halted:
                    self._decision(tensor, iteration, differs & ~running, margin, AFTER_HALTING)
            else:
                self._decision(tensor, iteration, differs, margin)
        return True

    def _sort_choices(self, values: dict[str, np.ndarray]) -> None:
        """What was chosen is a set: two with equal scores may come in either order, each with its own value."""
        orders = {t.name: values[t.name].argsort(-1, kind="stable") for t in self.spec.trace if t.kind == "choice"}
        for tensor in self.spec.trace:
            order = orders.get(tensor.name if tensor.kind == "choice" else tensor.of or "")
            if tensor.kind in ("choice", "chosen") and order is not None:
                values[tensor.name] = np.take_along_axis(values[tensor.name], order, -1)

    def _is_choice(self, tensor: TraceTensor, iteration: int, found: np.ndarray) -> None:
        """Near a tie, too, so many different ones are chosen: of sorted [B, T, K], at every real position."""
        twice = (found[..., 1:] == found[..., :-1]).any(-1) & self.case.real
        for row, token in np.argwhere(twice)[:1]:
            text = f"of {tensor.name} one is chosen twice: {', '.join(map(str, found[row, token]))}"
            self._problem(tensor.name, iteration + 1, text, position=(int(row), int(token)))

    def _decision(
        self, tensor: TraceTensor, iteration: int, differs: np.ndarray, margin: np.ndarray | None, when: str = ""
    ) -> None:
        differs, decision = differs & ~self.tainted, tensor.name + when
        band = math.inf if self.allowed is None else self.allowed.band(decision, iteration)
        for row, token in np.argwhere(differs):
            if self.tainted[row, token]:
                continue
            gap = float(margin[iteration, row, token]) if margin is not None else None
            if gap is not None and gap < band:
                tie = NearTie(self.case.name, int(row), int(token), iteration + 1, decision, gap, band)
                self.found.near_ties.append(tie)
            else:
                text, at = _TURNED[tensor.kind].format(tensor.name), (int(row), int(token))
                if gap is not None and math.isfinite(gap):
                    text = f"{text}, {gap:.1e} away from a tie"
                    self._problem(tensor.name, iteration + 1, text, gap, band, at)
                else:
                    self._problem(tensor.name, iteration + 1, text, position=at)
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
        found, expected = self.found.loops, int(self.case.output("loops"))
        if (self.tainted & self.case.real).any() and bool(self.case.input("early_exit")):
            expected = int(self._output("depth")[self.case.real].max())  # what its own decisions ask for
        if found != expected:
            self._problem("loops", min(found, expected) + 1, f"ran {found} loops, {expected} were due")
        elif self.answer.trace is not None and len(self.answer.trace) != found:
            self._problem("loops", None, f"counted {found} loops and ran {len(self.answer.trace)}")

    def _depth(self) -> None:
        found, expected = self._output("depth"), self.case.output("depth")
        turned = (found != expected) & ~self.tainted
        for row, token in np.argwhere(turned)[:1]:
            text = f"depth is {found[row, token]}, in float64 {expected[row, token]}"
            self._problem("depth", None, f"{text}, at {int(turned.sum())} positions", position=(int(row), int(token)))
        padding = ~self.case.real & (found != 0)
        for row, token in np.argwhere(padding)[:1]:
            text = f"depth of padding is {found[row, token]}, and is 0 by the contract of the port"
            self._problem("depth", None, f"{text}, at {int(padding.sum())} positions", position=(int(row), int(token)))

    def _entries(self, before: bool) -> None:
        """New cache entries, line by line: those that are made before the loop, or in it and behind it."""
        for group in sorted(self.spec.caches, key=lambda group: not group.per_loop):
            name = self.spec.ports.of("new", group.name).name
            both = self.answer.outputs[name], self.case.outputs[name]
            found, expected = (array.reshape(-1, *array.shape[-3:]) for array in both)
            for line in range(len(expected)):
                if (line < group.before and not group.per_loop) == before:
                    self._error(name, line, found[line], expected[line])
                    if group.rounded and self.allowed is not None:
                        self._is_rounded(name, line, found[line], group.rounded)

    def _is_rounded(self, name: str, index: int, found: np.ndarray, parts: tuple[int, ...]) -> None:
        """Lines [B, T, width] that are to be rounded stay as they are when they are: which needs no tolerance."""
        off = found != rounded_parts(torch.from_numpy(found), parts).numpy()
        for row, token in np.argwhere(off.any(-1) & ~self.tainted)[:1]:
            text = f"{name} of {line(self.spec, name, index)} holds what is not rounded to int8"
            self._problem(name, None, text, position=(int(row), int(token)))

    def _output(self, role: str) -> np.ndarray:
        return self.answer.outputs[self.spec.ports.of(role).name]

    def _error(
        self, name: str, index: int, found: np.ndarray, expected: np.ndarray, of: np.ndarray | None = None
    ) -> None:
        """Largest difference at comparable positions (among `of`) over the scale; both are [B, T, ...]."""
        clean = ~self.tainted if of is None else ~self.tainted & of
        tensor, error = self.traced.get(name), 0.0
        if clean.any():
            difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
            difference = np.where(clean, difference.reshape(*clean.shape, -1).max(-1), -1.0)
            unit = tensor is not None and tensor.unit
            scale = 1.0 if unit else float(np.abs(expected[clean].astype(np.float64)).max()) or 1.0
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
            amount = f"differs by {error:.1e} of its scale" if math.isfinite(error) else "holds NaN or infinite values"
            part = line(self.spec, name, index)
            text = f"{name}{part and f' of {part}'} {amount}, allowed {limit:.1e}"
            iteration = index + 1 if tensor is not None else None
            self._problem(name, iteration, text, error, limit, self.found.worst[name, index])

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


def histogram(depth: np.ndarray, real: np.ndarray) -> dict[int, int]:
    """How many real positions stopped at each depth, both [B, T]; nothing where the shapes differ."""
    values, counts = np.unique(depth[real] if depth.shape == real.shape else [], return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def line(spec: LoopSpec, name: str, index: int) -> str:
    """Which line of a cache group it is, counted from 1, in words; nothing for what is no new cache entries."""
    group = next((group for group in spec.caches if spec.ports.of("new", group.name).name == name), None)
    if group is None:
        return ""
    if not group.per_loop:
        return f"layer {index + 1}"
    depth, slot = divmod(index, group.slots)
    return f"depth {depth + 1}" + (f", slot {slot + 1}" if group.slots > 1 else "")


def possible_ties(case: Case, allowed: Tolerances) -> Iterator[NearTie]:
    """The decisions of a case that are nearer to a tie than the precision can tell, iteration by iteration.

    What is chosen for a halted position is no longer its answer, but the next iteration's cache entries come from it,
    to which other positions attend.
    """
    steps, who = len(case.trace), halting(case.spec)
    for iteration in range(steps):
        running = case.real
        if who is not None and iteration:
            running = case.real & ~case.trace[who.name][iteration - 1]
        waiting = case.real & ~running if iteration + 1 < steps else np.zeros_like(running)
        for tensor in decisions(case.spec):
            margin = case.margins[tensor.name][iteration]
            after = tensor.kind == "choice" and not tensor.until_halted
            for name, of in ((tensor.name, running), *([(tensor.name + AFTER_HALTING, waiting)] if after else [])):
                band = allowed.band(name, iteration)
                for row, token in np.argwhere((margin < band) & of):
                    gap = float(margin[row, token])
                    yield NearTie(case.name, int(row), int(token), iteration + 1, name, gap, band, possible=True)
