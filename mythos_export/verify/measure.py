"""The tolerances, measured: what eager PyTorch at the same precision errs against float64, times FACTOR."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from mythos_export.verify.compare import Comparison
from mythos_export.verify.tolerances import EPSILON, FACTOR, FLOOR_ULPS, Tolerances
from mythos_export.verify.trace import AFTER_HALTING, decisions, halting
from mythos_export.verify.truth import Asked


def measure(
    asked: Iterable[Asked], comparisons: Iterable[Comparison], precision: str, factor: float = FACTOR
) -> Tolerances:
    """From eager's comparisons with the truth (`compare` without tolerances). Errors add up over the iterations, so a
    later one is allowed no less than an earlier one."""
    floor = FLOOR_ULPS * EPSILON[precision]
    errors: dict[str, list[float]] = {}
    bands: dict[str, list[float]] = {}
    for item, comparison in zip(asked, comparisons, strict=True):
        for name, series in comparison.errors.items():
            _raise_to(errors.setdefault(name, []), series)
        for name, series in _decision_errors(item, comparison):
            _raise_to(bands.setdefault(name, []), series)
    return Tolerances(precision, _finish(errors, floor, factor), _finish(bands, floor, factor))


def _decision_errors(item: Asked, comparison: Comparison) -> Iterator[tuple[str, list[float]]]:
    """By decision, the largest error per iteration of what it is made by, of positions whose decisions were until then
    those of float64."""
    case = item.case
    made = decisions(case.spec)
    order = {tensor.name: index for index, tensor in enumerate(made)}
    until = np.where(case.real, len(case.trace) * len(made), 0)  # decisions, counted through all iterations
    for tie in comparison.near_ties:
        first = (tie.iteration - 1) * len(made)
        # The turning decision itself counts: this error is what turned it.
        itself = first + order[tie.decision.removesuffix(AFTER_HALTING)] + 1
        until[tie.row, tie.token] = min(until[tie.row, tie.token], itself)
        until[tie.row, tie.token + 1 :] = np.minimum(until[tie.row, tie.token + 1 :], first)
    who = halting(case.spec)
    for tensor in made:
        series: dict[bool, list[float]] = {True: [], False: []}
        for iteration, error in enumerate(item.errors[tensor.name]):
            same = until > iteration * len(made) + order[tensor.name]
            running = case.real if who is None or not iteration else ~case.trace[who.name][iteration - 1]
            for before, of in ((True, running), (False, ~running)):
                series[before].append(float(error[same & of].max(initial=0.0)))
        yield tensor.name, series[True]
        if tensor.kind == "choice":
            yield tensor.name + AFTER_HALTING, series[False]


def _finish(series: Mapping[str, list[float]], floor: float, factor: float) -> dict[str, tuple[float, ...]]:
    return {
        name: tuple(float(max(floor, factor * error)) for error in np.maximum.accumulate(values or [0.0]))
        for name, values in series.items()
    }


def _raise_to(values: list[float], least: Iterable[float]) -> None:
    for index, value in enumerate(least):
        if index == len(values):
            values.append(value)
        values[index] = max(values[index], value)
