"""The engine in ONNX Runtime's CUDA provider on compiled kernels, without PyTorch in it: equal tokens and depths, what
crossed, and tokens a second of a small model. Kernels are compiled here, for this GPU."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.gpu.captured import bundles_of
from benchmarks.gpu.rows import answers_of, near_of
from benchmarks.gpu.run import Run
from mythos_export.kernels import triton_build
from mythos_export.kernels.op import calls_of
from mythos_export.targets.cuda_lines import write_lines
from mythos_runtime.cuda_ops import CUDA_OPS, KERNELS_FOLDER, missing_cuda_library
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.cores import open_core
from mythos_runtime.engine.memory import Room
from mythos_runtime.engine.ort_device.device import OrtDevice
from mythos_runtime.engine.ort_device.opening import OrtRows
from mythos_runtime.line_ports import FOLDER
from mythos_runtime.manifest import read_manifest
from mythos_runtime.ort import OrtSession
from mythos_runtime.ports import Ports
from mythos_runtime.row_ports import GRAPHS
from mythos_runtime.session import OpLibrary, Options

_ROWS = 64


def main(run: Run) -> None:
    if not run.dry:
        import onnxruntime
        import torch

        torch.zeros(1, device="cuda")  # which brings CUDA's libraries into the process
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            run.record.say("not here", "this ONNX Runtime has no CUDA provider: see carry_onnxruntime")
            return
        if lack := missing_cuda_library():  # `pack` brings it from a machine that could build it
            run.record.say("operators", {"missing": lack, "ok": False})
            return
        os.environ[CUDA_OPS] = "1"
    for bundle in bundles_of(run, int8_caches=True):
        with run.record.step(bundle.name):
            run.record.say(bundle.name, _compared(run, bundle))


def _compared(run: Run, bundle: Path) -> dict[str, Any]:
    manifest = read_manifest(bundle)
    expected, expected_logits = answers_of(open_core(bundle, manifest, Options(provider="cpu")))
    with tempfile.TemporaryDirectory() as place:
        device = OrtDevice(run.device)
        core = _core(run, bundle, Path(place), device)
        answers_of(core)  # which loads kernels
        before, begun = (core.steps, device.uploads, device.downloads), time.perf_counter()
        got, logits = answers_of(core)
        seconds = time.perf_counter() - begun
    steps, up, down = (
        after - old for after, old in zip((core.steps, device.uploads, device.downloads), before, strict=True)
    )
    found: dict[str, Any] = {"equal": got == expected, "steps": steps, "uploads": up, "downloads": down}
    found["tokens_per_second"] = round(sum(len(tokens) for tokens, _ in got) / seconds, 1)
    if found["equal"]:
        found["logits"] = float(np.abs(logits - expected_logits).max() / np.abs(expected_logits).max())
    return {**found, "ok": found["equal"] and found["logits"] <= near_of(manifest.spec)}


def _core(run: Run, bundle: Path, place: Path, device: OrtDevice) -> Core:
    """Over the bundle's row graphs, in a copy in `place`, with what `--target cuda` adds to it."""
    spec, copy = read_manifest(bundle).spec, place / "bundle"
    shutil.copytree(bundle, copy)
    write_lines(spec, copy)
    if not run.dry:
        import torch

        major, minor = torch.cuda.get_device_capability()
        calls = tuple(call for name in GRAPHS for call in calls_of(ir.load(bundle / f"{name}.onnx")))
        triton_build.build_for(calls, "fp32", copy / KERNELS_FOLDER, architectures=[10 * major + minor])

    def open_graph(file: str, ports: Ports) -> OrtSession:
        library: OpLibrary = None if file.startswith(FOLDER) else "auto"
        return OrtSession(copy / file, ports, Options(provider=run.device, op_library=library))

    rows = OrtRows.of(spec, device, open_graph)
    memory = rows.memory(Room(16, 16 * spec.trained_loops, 256))
    return Core(rows.graphs(memory, _ROWS), memory)
