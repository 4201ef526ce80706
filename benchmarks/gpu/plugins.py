"""Kernels built ahead of time and started through the driver, as a TensorRT plug-in does."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.run import LIMITS, Run, distance
from mythos_export.kernels import triton_build
from mythos_export.kernels.op import OPERATORS
from mythos_export.kernels.plugin.driver import CudaDriver
from mythos_export.kernels.plugin.launch import Launcher
from mythos_export.kernels.plugin.program import Program
from mythos_export.kernels.plugin.tensorrt import launch


def main(run: Run) -> None:
    for precision, dtype in (("fp16", np.float16), ("fp32", np.float32)):
        for case in cases(dtype)[1:3] if run.dry else cases(dtype):
            key = f"{case.op} {precision} {list(next(iter(case.inputs.values())).shape)}"
            with run.record.step(key), tempfile.TemporaryDirectory() as folder:
                run.record.say(key, _check(run, case, precision, Path(folder)))
        if run.dry:
            return


def cases(dtype: type) -> list[Any]:
    from operator_cases import OperatorCase, cache_inputs  # of tests/, which the keeper puts on the path
    from product_cases import moe_inputs

    r = np.random.default_rng(3)
    found = []
    for n in (1, 40):
        inputs = moe_inputs(1, n, 64, 9, 3, 33, 48, dtype)
        rows = ("x", "expert_index", "expert_weight")
        found.append(OperatorCase("moe", {k: v[None] if k in rows else v for k, v in inputs.items()}, {}))
    for B, T, S in ((2, 1, 64), (2, 40, 300)):
        mla = {
            "q_nope": r.standard_normal((B, T, 4, 32)).astype(dtype),
            "q_rope": r.standard_normal((B, T, 4, 16)).astype(dtype),
            **cache_inputs(T, B, T, S, 80, dtype),
            "kv_up": (r.standard_normal((4 * 64, 64)) / 8).astype(dtype),
        }
        found.append(OperatorCase("mla_attention", mla, {"scale": 0.25, "v_head_dim": 32}))
        gqa = {"q": r.standard_normal((B, T, 6, 32)).astype(dtype), **cache_inputs(T, B, T, S, 2 * 3 * 32, dtype)}
        found.append(OperatorCase("gqa_attention", gqa, {"scale": 0.25, "kv_heads": 3}))
    return found


def _check(run: Run, case: Any, precision: str, folder: Path) -> dict[str, Any]:
    operator = OPERATORS[case.op]
    assert operator.plans is not None and operator.plugin is not None
    plans = operator.plans(case.call, precision)
    major, minor = (9, 0) if run.dry else torch.cuda.get_device_capability()
    begun = time.perf_counter()
    specs = list({spec.name: spec for plan in plans for spec in plan.launches}.values())
    triton_build.build(specs, [10 * major + minor], folder, plans=plans)
    program = Program.from_build(folder, case.op, plans[0].variant, case.attributes)
    built = {"built_seconds": round(time.perf_counter() - begun, 1), "kernels": len(specs)}
    if run.dry:
        return built
    values = {k: np.nan_to_num(v, nan=3.0) if k == "chunk" else v for k, v in case.inputs.items()}
    tensors = {k: torch.from_numpy(np.array(v)).cuda() for k, v in values.items()}
    exact = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in values.items()}
    want = operator.reference(**exact, **case.attributes)
    out = torch.full(want.shape, torch.nan, dtype=next(iter(tensors.values())).dtype, device="cuda")
    shapes, addresses = [list(t.shape) for t in tensors.values()], [t.data_ptr() for t in tensors.values()]
    stream = torch.cuda.current_stream().cuda_stream
    launch(operator.plugin, Launcher(program, CudaDriver()), shapes, addresses, out.data_ptr(), stream)
    far = distance(out.cpu(), torch.from_numpy(want))
    return {**built, "distance": far, "ok": far < LIMITS[precision]}
