"""Bundles in ONNX Runtime's CUDA provider, where it was carried (`carry_onnxruntime`): equal, timed, what runs where.

`Loop` reads its trip count and condition on the CPU: one copy an iteration.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.captured import against_onnx, bundles_of
from benchmarks.gpu.run import Run
from mythos_runtime import load
from mythos_runtime.manifest import read_manifest

_TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(bool)": bool}


def main(run: Run) -> None:
    if not run.dry:
        import torch

        torch.zeros(1, device="cuda")  # which brings CUDA's libraries into the process
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    run.record.say("onnxruntime", [onnxruntime.__version__, providers])
    if not run.dry and "CUDAExecutionProvider" not in providers:
        run.record.say("not here", "this ONNX Runtime has no CUDA provider: see carry_onnxruntime")
        return
    for bundle in bundles_of(run, int8_caches=False):
        with run.record.step(bundle.name):
            model = load(bundle, backend="onnxruntime", provider=run.device)
            run.record.say(bundle.name, against_onnx(run, model, bundle, 1e-3))
        with run.record.step(f"{bundle.name} placement"):
            run.record.say(f"{bundle.name} placement", _placement(run, bundle))


def _placement(run: Run, bundle: Path) -> dict[str, Any]:
    """Kernels by provider and operator, and the copies between them, of one call."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        providers = ["CPUExecutionProvider"] if run.dry else ["CUDAExecutionProvider", "CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(str(bundle / "model.onnx"), options, providers=providers)
        types = {value.name: _TYPES[value.type] for value in session.get_inputs()}
        sizes = {"B": 1, "T": 1, "P": 8, "N": 6}
        values = {"past_lengths": 8, "positions": 8, "max_loops": 6, "halt_threshold": 2.0}
        feeds = {}
        for port in read_manifest(bundle).spec.ports.inputs:
            shape = [size if isinstance(size, int) else sizes[size] for size in port.dims]
            feeds[port.name] = np.full(shape, values.get(port.role, 0), types[port.name])
        session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    where: dict[str, Counter[str]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            told = event["args"]
            where.setdefault(told.get("provider", "?"), Counter())[told.get("op_name", "?")] += 1
    copies = sum(count for found in where.values() for name, count in found.items() if "Memcpy" in name)
    return {"kernels": {name: dict(found.most_common(14)) for name, found in where.items()}, "copies": copies}
