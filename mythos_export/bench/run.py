"""A whole run: bundle in, latency document out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mythos_export.bench import breakdown
from mythos_export.bench.backends import BACKENDS
from mythos_export.bench.backends.backend import port_arrays
from mythos_export.bench.contestant import Contestant
from mythos_export.bench.document import (
    FORMAT,
    VERSION,
    contestants_json,
    depth_lines,
    limits_of,
    model_json,
    noise_of,
    rows_of,
)
from mythos_export.bench.machine import describe_machine, usable_cores
from mythos_export.bench.model_cost import GraphCost
from mythos_export.bench.rounds import measure
from mythos_export.bench.verdict import verdict
from mythos_export.bench.workloads import Workload, load_case, matrix, write_inputs
from mythos_export.errors import BenchError, ToolFailed, ToolMissing
from mythos_export.progress import Progress, silent
from mythos_runtime import load, read_manifest
from mythos_runtime.manifest import Manifest
from mythos_runtime.op_library import find_op_library

LIMITS = "mythos_export.bench.limits:Limits"


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, and how long.

    Attributes:
        threads: CPU threads of every backend; None: one per physical core that this process may use.
        rounds: repetitions of everything in new processes; six give intervals of 95 %.
        turn_seconds: for each workload, backend and round.
        backends: short names of `BACKENDS`, or "module:Class"; the first is what ratios refer to.
        workloads: instead of the matrix of `workloads.matrix`, which `quick` and `capacity` shape.
        ids: safetensors file with `input_ids`, instead of random ones.
        checkpoint: what the bundle was made from, for peers that start from the weights.
        command: what the report is to name as the command that made it.
        rounded: bundles of the same model in other precisions, which take part with the CPU kernels.
    """

    threads: int | None = None
    rounds: int = 6
    turn_seconds: float = 0.2
    backends: tuple[str, ...] = tuple(BACKENDS)
    workloads: tuple[Workload, ...] | None = None
    quick: bool = False
    capacity: int | None = None
    ids: Path | None = None
    checkpoint: Path | None = None
    command: str = "mythos bench"
    rounded: tuple[Path, ...] = ()


def _rounded(bundle: Path, request: dict[str, Any], cores: tuple[int, ...]) -> Contestant:
    """The CPU kernels on a bundle of the same model in another precision."""
    precision = read_manifest(bundle).precision
    asked = request | {"bundle": str(bundle.resolve())}
    return Contestant(BACKENDS["kernels"], asked, cores, precision, rounded=True)


def bench(bundle: Path, options: BenchOptions, progress: Progress = silent) -> dict[str, Any]:
    """Measure a bundle and return the document (see `document.py`); nothing is written.

    Raises:
        ToolMissing: no backend runs here.
        BenchError: no workload fits the model, or more threads were asked for than there are cores.
        BundleError, BackendMissing: from loading the bundle.
    """
    progress("read the bundle")
    manifest = read_manifest(bundle)
    cores = usable_cores(options.threads)
    threads = options.threads or len(cores)
    if threads > len(cores):
        raise BenchError(f"{threads} threads were asked for, and this process may use {len(cores)} cores")
    machine = describe_machine(threads, cores)
    model = load(bundle, threads=threads, verify="sizes", provider="cpu", op_library=None)
    spec = model.spec
    trained = spec.trained_loops
    left_out: list[str] = []
    workloads = list(options.workloads or ())
    if not workloads:
        workloads, left_out = matrix(spec, options.capacity, options.quick)
    with tempfile.TemporaryDirectory(prefix="mythos-bench-") as folder:
        scratch = Path(folder)
        inputs = scratch / "inputs.npz"
        progress("make the inputs")
        write_inputs(model, workloads, inputs, options.ids)
        request = {
            "bundle": str(bundle.resolve()),
            "checkpoint": str(options.checkpoint.resolve()) if options.checkpoint else None,
            "threads": threads,
            "scratch": folder,
            "inputs": str(inputs),
            "trained": trained,
        }
        contestants = [
            Contestant(BACKENDS.get(name, name), request, cores, manifest.precision) for name in options.backends
        ]
        contestants += [_rounded(other, request, cores) for other in options.rounded]
        limits = Contestant(LIMITS, request, cores)
        try:
            _compile(contestants, workloads, progress)
            if all(contestant.failed for contestant in contestants):
                reasons = "; ".join(f"{c.name or c.source}: {c.failed}" for c in contestants)
                raise ToolMissing(f"no backend of this bundle runs here ({reasons})")
            # What ratios refer to is the first that runs.
            contestants.sort(key=lambda contestant: contestant.failed is not None)
            measured = measure(
                contestants,
                limits,
                workloads,
                options.rounds,
                options.turn_seconds,
                progress,
                _to_profile(workloads, "prefill", trained) or next((w for w in workloads if w.kind == "prefill"), None),
            )
        finally:
            for contestant in (*contestants, limits):
                contestant.stop()
        progress("profile")
        profiles, unprofiled = _profiles(bundle, manifest, workloads, inputs, threads)
    rates = limits_of(measured)
    costs = {c.request["bundle"]: _cost_of(Path(c.request["bundle"])) for c in contestants}
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "command": options.command,
        "bundle": _bundle_json(bundle, manifest),
        "model": model_json(spec, costs[request["bundle"]]),
        "machine": machine,
        "noise": noise_of(measured),
        "limits": rates,
        "method": {
            "rounds": options.rounds,
            "turn_seconds": options.turn_seconds,
            "inputs": f"{options.ids.name}" if options.ids else "random ids",
        },
        "energy": next((c.energy_missing for c in contestants if c.energy_missing), "counted"),
        "contestants": contestants_json(contestants, measured),
        "workloads": [workload.to_json() for workload in workloads],
        "left_out": left_out,
        "rows": rows_of(measured, contestants, workloads, costs, rates),
        "depth_lines": depth_lines(measured, contestants, workloads),
        "breakdown": profiles,
        "breakdown_failed": unprofiled,
    }
    document["verdict"] = verdict(document)
    return document


def _compile(contestants: Sequence[Contestant], workloads: Sequence[Workload], progress: Progress) -> None:
    """Start everybody once, and let those that compile do so before the clock runs, as many at a time as fit."""
    progress("start the backends")

    def start(contestant: Contestant) -> None:
        try:
            contestant.start()
            contestant.start_seconds.clear()  # all at once, and from a cold disk: no time of one start
            contestant.load_seconds.clear()
            if contestant.failed or contestant.restarts:
                return
            for workload in workloads:
                progress(f"compile: {contestant.name}")
                answer = contestant.ask("compile", workload=workload.to_json())
                contestant.compiled[workload.name] = {"seconds": answer["seconds"], "note": answer["note"]}
        except ToolFailed as error:
            contestant.failed = error.brief
            contestant.stop()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(start, contestants))


def _graph_of(manifest: Manifest) -> str | None:
    return manifest.file_ending(".onnx", "model.onnx")


def _cost_of(bundle: Path) -> GraphCost | None:
    graph = _graph_of(read_manifest(bundle, verify_hashes=False))
    return None if graph is None else GraphCost(bundle / graph)


def _profiles(
    bundle: Path, manifest: Manifest, workloads: Sequence[Workload], inputs: Path, threads: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """ONNX Runtime's breakdown of one prefill and one decode, with the bodies and with the CPU kernels; what failed."""
    graph, spec = _graph_of(manifest), manifest.spec
    if graph is None:
        return [], []
    chosen = [_to_profile(workloads, kind, spec.trained_loops) for kind in ("decode", "prefill")]
    forms: dict[str, Path | None] = {"ONNX Runtime, function bodies": None}
    if library := find_op_library():
        forms["ONNX Runtime, CPU kernels"] = library
    profiles, failed = [], []
    for workload in filter(None, chosen):
        ports = port_arrays(load_case(inputs, workload, spec.trained_loops), spec)
        for name, taken in forms.items():
            try:
                found = breakdown.profile(bundle / graph, spec, ports, taken, threads)
            except Exception as error:  # ONNX Runtime's have no base class; what was timed must not be lost for it
                line = next(iter(str(error).strip().splitlines()), "no message")
                failed.append(f"{workload.name}, {name}: {type(error).__name__}: {line[:300]}")
            else:
                profiles.append({"workload": workload.name, "backend": name, **found.to_json()})
    return profiles, failed


def _to_profile(workloads: Sequence[Workload], kind: str, trained: int) -> Workload | None:
    """The middle one by size, of batch 1, at the trained depth where that was measured."""
    forced = [w for w in workloads if w.kind == kind and w.depth is not None and w.batch == 1]
    forced = [w for w in forced if w.depth == trained] or forced
    forced.sort(key=lambda w: (w.tokens, w.held))
    return forced[len(forced) // 2] if forced else None


def _bundle_json(bundle: Path, manifest: Manifest) -> dict[str, Any]:
    return {
        "name": bundle.resolve().name,
        "source": manifest.source.name,
        "precision": manifest.precision,
        "created": manifest.created,
        "doubt": manifest.doubt,
        "config": manifest.config,
        "files": {name: entry.bytes for name, entry in manifest.files.items()},
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
    }
