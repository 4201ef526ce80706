"""The measuring itself: rounds over all workloads, in which the contestants take turns.

A round restarts every process, one at a time (but those whose preparation is a compilation), measures the machine's
limits, and goes through the workloads in a shuffled order. For each, all contestants are prepared, and then timed twice
in opposite order (A B C C B A), so that a drift during the turn meets all alike. Between the workloads two small fixed
kernels are timed: their spread over the run says how quiet the machine was.
"""

from __future__ import annotations

import random
import resource
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mythos_export.bench.contestant import Contestant
from mythos_export.bench.machine import CpuTimes
from mythos_export.bench.workloads import Workload
from mythos_export.errors import ToolFailed
from mythos_export.progress import Progress

LIMIT_SECONDS, CALIBRATION_SECONDS = 0.02, 0.005
WRONG = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1e-1, "int8": 1e-3, "int4": 1e-3, "fp8": 1e-3, "mixed": 1e-3}
WRONG |= {"int8a8": 5e-2, "int4a8": 5e-2}
"""By precision, the distance of logits from the first contestant's, relative to the largest, above which a contestant
computes another model. Wide: rounding may fall elsewhere in every backend, and `mythos verify` is what judges it.
Where a contestant's weights are rounded, and the first one's are not, the distance is reported and not judged."""


@dataclass
class Samples:
    """What one contestant gave for one workload.

    Attributes:
        rounds: seconds of every call, round by round.
        first_seconds: of the first call after preparing, round by round.
        joules: per call, round by round, where the machine counts them.
        loops: iterations that ran; None where the backend does not tell.
        peak_bytes: most memory of its process during the workload.
        distance: of its logits from the first contestant's, relative to the largest.
        failed: why there is nothing; None where there is.
    """

    rounds: list[list[float]] = field(default_factory=list)
    first_seconds: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    loops: int | None = None
    peak_bytes: int | None = None
    distance: float | None = None
    failed: str | None = None


@dataclass
class Measured:
    """Everything that a run gave, before it is summed up."""

    samples: dict[tuple[str, str], Samples]  # (contestant's name, workload's name)
    limits: list[dict[str, Any]]  # one per round
    calibration: list[dict[str, float]]  # one per workload and round
    interrupted: int
    load: dict[str, float]


def measure(
    contestants: Sequence[Contestant],
    limits: Contestant,
    workloads: Sequence[Workload],
    rounds: int,
    turn_seconds: float,
    progress: Progress,
    first_token: Workload | None = None,
) -> Measured:
    """Run all rounds. A contestant that breaks is left out from there on, and says why.

    `first_token` is what every fresh process computes first, for the time from its start to the first token.
    """
    samples: dict[tuple[str, str], Samples] = {}
    measured = Measured(samples, [], [], 0, {})
    before = CpuTimes.now()
    ours = _cpu_seconds((*contestants, limits))
    limits.start()
    for number in range(1, rounds + 1):
        progress(f"round {number} of {rounds}: load", (number - 1) / rounds)
        for contestant in contestants:
            if contestant.restarts:
                _started(contestant, first_token)
        measured.limits.append(limits.ask("measure", what="limits", seconds=LIMIT_SECONDS))
        order = list(workloads)
        random.Random(number).shuffle(order)
        for index, workload in enumerate(order, 1):
            part = (number - 1 + (index - 1) / len(order)) / rounds
            progress(f"round {number} of {rounds}: {workload.name} ({index} of {len(order)})", part)
            measured.calibration.append(limits.ask("measure", what="calibration", seconds=CALIBRATION_SECONDS))
            _turn(contestants, workload, number, turn_seconds, measured)
    measured.load = CpuTimes.now().since(before, _cpu_seconds((*contestants, limits)) - ours)
    return measured


def _cpu_seconds(contestants: Sequence[Contestant]) -> float:
    """Processor time of this process and of all workers so far. Those that ended count too, whatever ended them."""
    alive = sum(contestant.cpu_seconds() for contestant in contestants)  # first: it waits for those that have ended
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return alive + sum(each.ru_utime + each.ru_stime for each in used)


def _started(contestant: Contestant, first_token: Workload | None = None) -> None:
    if contestant.failed:
        return
    try:
        contestant.start()
    except ToolFailed as error:
        contestant.failed = error.brief
        contestant.stop()
    if contestant.failed or first_token is None:
        return
    try:
        contestant.first_token(first_token)
    except ToolFailed:  # it fails in this workload's turn too, and the reason is kept there
        _started(contestant)


def _turn(
    contestants: Sequence[Contestant],
    workload: Workload,
    number: int,
    turn_seconds: float,
    measured: Measured,
) -> None:
    """One workload in one round: everybody prepared, then timed forwards and backwards."""
    ready: list[Contestant] = []
    expected = np.zeros(0)
    for contestant in contestants:
        found = measured.samples.setdefault((contestant.name or contestant.source, workload.name), Samples())
        found.failed = found.failed or contestant.failed
        if found.failed:
            continue
        try:
            logits = _prepare(contestant, workload, found)
            expected = logits if not ready else expected
            if number == 1:
                _compare(contestant, found, expected, logits)
        except ToolFailed as error:
            _failed(contestant, found, error)
        if not found.failed:
            ready.append(contestant)
    random.Random(f"{number} {workload.name}").shuffle(ready)
    taken: dict[str, list[float]] = {contestant.name: [] for contestant in ready}
    for contestant in (*ready, *reversed(ready)):
        found = measured.samples[contestant.name, workload.name]
        if found.failed:
            continue
        try:
            answer = contestant.ask("time", workload=workload.name, seconds=turn_seconds / 2)
        except ToolFailed as error:
            _failed(contestant, found, error)
            continue
        taken[contestant.name] += answer["seconds"]
        measured.interrupted += answer["interrupted"]
        if answer["joules"] is not None:
            found.joules.append(answer["joules"])
    for contestant in ready:
        found = measured.samples[contestant.name, workload.name]
        if not found.failed:
            found.rounds.append(taken[contestant.name])
            contestant.ask("release")


def _prepare(contestant: Contestant, workload: Workload, found: Samples) -> np.ndarray:
    """Everything before the clock; returns the logits."""
    answer = contestant.ask("prepare", workload=workload.to_json())
    found.first_seconds.append(answer["first_seconds"])
    found.loops = answer["loops"]
    found.peak_bytes = found.peak_bytes or answer["peak_bytes"]
    logits: np.ndarray = answer["arrays"]["logits"]
    return logits


def _compare(contestant: Contestant, found: Samples, expected: np.ndarray, logits: np.ndarray) -> None:
    """Against the first contestant's; ToolFailed where it computes something else."""
    found.distance = _distance(expected, logits)
    if not np.isfinite(found.distance) or (not contestant.rounded and found.distance > WRONG[contestant.precision]):
        far = f"{found.distance:.1e} of their scale"
        raise ToolFailed(f"its logits differ from the first contestant's by {far}")


def _failed(contestant: Contestant, found: Samples, error: ToolFailed) -> None:
    """Out for this workload. Where the process has ended, the others get a new one; what was compiled in it is lost."""
    found.failed = error.brief
    try:
        contestant.ask("release")
    except ToolFailed:
        if contestant.restarts:
            _started(contestant)
        else:
            contestant.failed = f"{error.brief}, and with it went what it had compiled"


def _distance(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(expected - found).max() / max(np.abs(expected).max(), 1e-30))
