"""The JSON document of a run: measured samples summed up into rows, each held against the machine's limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mythos_export.bench import depth_line
from mythos_export.bench.contestant import Contestant
from mythos_export.bench.limits import best_of, reading_rate
from mythos_export.bench.model_cost import FLOAT32_ARITHMETIC, GraphCost
from mythos_export.bench.rounds import Measured, Samples
from mythos_export.bench.statistics import Interval, median_interval, percentiles, spread
from mythos_export.bench.workloads import Workload
from mythos_runtime.spec import LoopSpec

FORMAT = "mythos-latency"
VERSION = 1
QUIET_SPREAD, QUIET_OTHERS, QUIET_STOLEN = 0.10, 0.10, 0.02


def interval_json(interval: Interval) -> dict[str, float]:
    return {"low": interval.low, "high": interval.high, "coverage": interval.coverage}


def rows_of(
    measured: Measured,
    contestants: Sequence[Contestant],
    workloads: Sequence[Workload],
    costs: Mapping[str, GraphCost | None],
    limits: dict[str, Any],
) -> list[dict[str, Any]]:
    """A row for every workload and contestant that finished; `ratio` is how many times faster than the first one.

    `costs` by bundle: what the contestant's weights cost to read and to multiply with.
    """
    rows = []
    for workload in workloads:
        loops = next((s.loops for (_, w), s in measured.samples.items() if w == workload.name and s.loops), None)
        base = measured.samples.get((contestants[0].name, workload.name))
        for contestant in contestants:
            found = measured.samples.get((contestant.name, workload.name))
            if found is None or found.failed or not found.rounds:
                continue
            rows.append(_row(workload, contestant, found, base, loops))
            cost = costs[contestant.request["bundle"]]
            _against_limits(rows[-1], workload, cost, contestant.precision, limits, contestant.device)
    return rows


def _row(
    workload: Workload, contestant: Contestant, found: Samples, base: Samples | None, loops: int | None
) -> dict[str, Any]:
    medians = [float(np.median(seconds)) for seconds in found.rounds]
    typical = median_interval(medians)
    calls = percentiles([second for seconds in found.rounds for second in seconds])
    ratio = None
    if base is not None and not base.failed and len(base.rounds) >= len(medians):
        bases = [float(np.median(seconds)) for seconds in base.rounds[: len(medians)]]
        ratio = median_interval([b / m for b, m in zip(bases, medians, strict=True)])
    tokens = workload.batch * workload.tokens
    return {
        "workload": workload.name,
        "backend": contestant.name,
        "median": typical.median,
        "interval": interval_json(typical),
        "p50": calls.p50,
        "p90": calls.p90,
        "p99": calls.p99,
        "calls": calls.calls,
        "rounds": len(medians),
        "round_medians": medians,
        "ratio": ratio and ratio.median,
        "ratio_interval": ratio and interval_json(ratio),
        "tokens_per_second": tokens / typical.median,
        "loops": loops,
        "first_call_seconds": float(np.median(found.first_seconds)),
        "peak_bytes": found.peak_bytes,
        "joules": float(np.median(found.joules)) if found.joules else None,
        "distance": found.distance,
    }


def _against_limits(
    row: dict[str, Any],
    workload: Workload,
    graph: GraphCost | None,
    precision: str,
    limits: dict[str, Any],
    device: str,
) -> None:
    """Adds `fraction_of_limit`, `bound_by` and what they come from; all None, with `limit_note`, where there is none.

    The rate of multiplying was measured in float32: a bundle that multiplies in another precision is held against
    reading alone.
    """
    row["bytes"] = row["flops"] = row["limit_note"] = None
    row["limit_seconds"] = row["bound_by"] = row["fraction_of_limit"] = None
    if graph is None:
        row["limit_note"] = "the bundle holds no ONNX graph to count in"
        return
    cost = graph.call(workload, row["loops"] if row["loops"] is not None else workload.depth or 0)
    memory = cost.bytes / reading_rate(limits, cost.working_set)
    arithmetic = cost.flops / limits["product"]["flops_per_second"] if precision in FLOAT32_ARITHMETIC else None
    row["bytes"], row["flops"] = cost.bytes, cost.flops
    if device != "cpu":
        row["limit_note"] = f"it computes on {device}; the limits are the processor's"
        return
    if arithmetic is None:
        row["limit_note"] = f"of reading alone: the rate of multiplying was measured in fp32, not in {precision}"
        arithmetic = 0.0
    row["limit_seconds"] = max(memory, arithmetic)
    row["bound_by"] = "reading" if memory >= arithmetic else "multiplying"
    row["fraction_of_limit"] = row["limit_seconds"] / row["median"]


def contestants_json(contestants: Sequence[Contestant], measured: Measured) -> list[dict[str, Any]]:
    """Who took part with which settings, who did not and why, and which workloads failed."""
    listed = []
    for contestant in contestants:
        name = contestant.name or contestant.source
        problems = {w: s.failed for (c, w), s in measured.samples.items() if c == name and s.failed}
        state = "missing" if contestant.missing else "failed" if contestant.failed else "measured"
        entry: dict[str, Any] = {"name": name, "source": contestant.source, "state": state}
        entry |= {"reason": contestant.failed, "description": contestant.description}
        entry["compiled"] = contestant.compiled
        if contestant.load_seconds:
            entry["load_seconds"] = float(np.median(contestant.load_seconds))
            entry["start_seconds"] = float(np.median(contestant.start_seconds))
            first = contestant.first_token_seconds
            entry["first_token_seconds"] = {workload: float(np.median(times)) for workload, times in first.items()}
        entry["failed_workloads"] = {} if contestant.failed else problems
        listed.append(entry)
    return listed


def noise_of(measured: Measured) -> dict[str, Any]:
    """How quiet the machine was, and in words why it was not."""
    read = spread([entry["read_seconds"] for entry in measured.calibration])
    product = spread([entry["product_seconds"] for entry in measured.calibration])
    load = measured.load
    reasons = []
    if max(read, product) > QUIET_SPREAD:
        reasons.append(f"the same small kernel took times that spread by {max(read, product):.0%}")
    if load["other_cores_busy"] > QUIET_OTHERS:
        reasons.append(f"other programs kept {load['other_cores_busy']:.1f} cores busy")
    if load["stolen_share"] > QUIET_STOLEN:
        reasons.append(f"the hypervisor took {load['stolen_share']:.0%} of a core")
    return {
        "quiet": not reasons,
        "reasons": reasons,
        "calibration_spread": {"reading": read, "multiplying": product},
        "interruptions": measured.interrupted,
        **load,
    }


def depth_lines(
    measured: Measured, contestants: Sequence[Contestant], workloads: Sequence[Workload]
) -> list[dict[str, Any]]:
    """A line for every kind of call that was measured at three forced depths or more."""
    lines = []
    kinds = {(w.kind, w.tokens, w.held, w.batch) for w in workloads if w.depth is not None}
    for kind, tokens, held, batch in sorted(kinds):
        same = {w.depth: w for w in workloads if (w.kind, w.tokens, w.held, w.batch) == (kind, tokens, held, batch)}
        for contestant in contestants:
            rounds = {}
            for depth, workload in same.items():
                found = measured.samples.get((contestant.name, workload.name))
                if depth is not None and found is not None and found.rounds and not found.failed:
                    rounds[depth] = [float(np.median(seconds)) for seconds in found.rounds]
            line = depth_line.fit(rounds)
            if line is None:
                continue
            size = f"{kind} {tokens if kind == 'prefill' else held}, batch {batch}"
            parts = {"fixed": line.fixed, "per_loop": line.per_loop}
            entry = {key: {"median": part.median, **interval_json(part)} for key, part in parts.items()}
            points = [list(point) for point in line.points]
            lines.append({"calls": size, "backend": contestant.name, **entry, "points": points, "misfit": line.misfit})
    return lines


def model_json(spec: LoopSpec, graph: GraphCost | None) -> dict[str, Any]:
    """The spec; weights, and bytes and FLOPs of one token without and with a cache, fixed and per loop."""
    document: dict[str, Any] = {"spec": spec.to_json(), "trained_loops": spec.trained_loops, "one_token": {}}
    if graph is None:
        return document | {"parameters": None, "active_parameters_per_loop": None}
    for held in (0, 128, 1024):
        token = Workload("decode", 1, held, 1, 1)
        fixed, loop = graph.fixed(token), graph.loop(token)
        document["one_token"][f"{held} held"] = {
            "fixed_bytes": fixed.bytes,
            "fixed_flops": fixed.flops,
            "loop_bytes": loop.bytes,
            "loop_flops": loop.flops,
        }
    met = graph.loop(Workload("decode", 1, 0, 1, 1)).weights
    return document | {"parameters": graph.weights, "active_parameters_per_loop": round(met)}


def limits_of(measured: Measured) -> dict[str, Any]:
    return best_of(measured.limits)
