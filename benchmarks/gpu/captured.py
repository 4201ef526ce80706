"""The captured programs of bundles on the device: as the eager backend runs them, with the loop as one graph, and by
AOTInductor; each against ONNX Runtime on the CPU."""

from __future__ import annotations

import functools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.run import Run
from mythos_runtime import Model, load
from mythos_runtime.eager import DEVICE_LOOP
from mythos_runtime.manifest import read_manifest


def main(run: Run) -> None:
    for bundle in bundles_of(run, int8_caches=False):
        for loop in ("", "1") if not run.dry else ("",):
            label = f"{bundle.name}{' loop on the device' if loop else ''}"
            with run.record.step(label):
                os.environ[DEVICE_LOOP] = loop
                model = load(bundle, backend="eager", provider=run.device)
                run.record.say(label, against_onnx(run, model, bundle, 1e-3))
        with run.record.step(f"{bundle.name} AOTInductor"):
            _inductor(run, bundle)


def bundles_of(run: Run, int8_caches: bool) -> list[Path]:
    """Those that were packed; those with int8 caches only where they are asked for, too: what is int8 there are pages,
    which the model's whole graph has none of. RuntimeError where there are none."""
    found = sorted(path.parent for path in run.bundles.glob("*/manifest.json"))
    if not found:
        raise RuntimeError(f"{run.bundles} holds no bundle; make some before: python -m benchmarks.gpu.pack")
    return [bundle for bundle in found if int8_caches or not read_manifest(bundle).spec.int8_cache]


def against_onnx(run: Run, model: Model, bundle: Path, limit: float) -> dict[str, Any]:
    """Logits relative to the largest, depths and loops of a prompt, a chunk behind it and one token; and its time."""
    onnx = load(bundle, backend="onnxruntime", provider="cpu")
    rows = np.random.default_rng(0).integers(0, model.spec.vocab_size, (2, 12))
    found: dict[str, Any] = {"description": model.session.description}
    caches = [each.new_cache(2, 16, policy="full") for each in (model, onnx)]
    for label, chunk in (("prefill", rows[:, :7]), ("chunk", rows[:, 7:11]), ("token", rows[:, 11:])):
        got, want = (each.forward(chunk, cache=cache) for each, cache in zip((model, onnx), caches, strict=True))
        far = float(np.abs(got.logits - want.logits).max() / np.abs(want.logits).max())
        equal = bool(np.array_equal(got.depth, want.depth))
        found[label] = {"logits": far, "depths_equal": equal, "loops": [got.loops, want.loops]}
    for loops in (1, 6):
        calls = [functools.partial(m.forward, rows[:, :1], max_loops=loops, halt_threshold=2.0) for m in (model, onnx)]
        times = [run.seconds(call, 9) for call in calls]
        found[f"token, {loops} loops, ms"] = [round(t * 1e3, 3) for t in times]
    steps = [found[label] for label in ("prefill", "chunk", "token")]
    found["ok"] = all(step["logits"] <= limit and step["depths_equal"] for step in steps)
    return found


def _inductor(run: Run, bundle: Path) -> None:
    """Compiled ahead of time; on the CPU that takes a C++ compiler's minutes, so that a dry run only loads it."""
    import mythos_model.ops  # noqa: F401  (registers the operators)
    from mythos_runtime.program import load_program

    program = load_program(bundle / "model.pt2")
    if run.dry:
        run.record.say(f"{bundle.name} AOTInductor", {"loaded": len(list(program.graph.nodes))})
        return
    from torch.export.passes import move_to_device_pass

    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        program = move_to_device_pass(program, "cuda")
        file = torch._inductor.aoti_compile_and_package(program, package_path=f"{folder}/model.pt2")
        torch._inductor.aoti_load_package(file)
        seconds = round(time.perf_counter() - begun, 1)
        run.record.say(f"{bundle.name} AOTInductor", {"compiled_seconds": seconds, "bytes": Path(file).stat().st_size})
