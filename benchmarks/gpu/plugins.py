"""TensorRT's plug-ins, called as it calls them: kernels built ahead of time, started through the driver in C++.

It needs what `make native` builds, which `benchmarks.gpu.pack` carries along.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.run import LIMITS, Run, distance
from mythos_export.kernels import triton_build
from mythos_export.kernels.cuda.signatures import described
from mythos_export.kernels.op import OPERATORS


def main(run: Run) -> None:
    from plugin_caller import CALLER  # of tests/, which the keeper puts on the path

    if not CALLER.exists():
        run.record.say("plug-ins", {"missing": f"{CALLER.name} is not built: make native", "ok": run.dry})
        return
    for precision, dtype in (("fp16", np.float16), ("fp32", np.float32)):
        for case in cases(dtype)[1:3] if run.dry else cases(dtype):
            key = f"{case.op} {precision} {list(next(iter(case.inputs.values())).shape)}"
            with run.record.step(key), tempfile.TemporaryDirectory() as folder:
                run.record.say(key, _check(run, case, precision, Path(folder)))
        if run.dry:
            return


def cases(dtype: type) -> list[Any]:
    from operator_cases import OperatorCase, cache_inputs
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
    from case_calls import calls_of_cases
    from plugin_caller import RUNNING, TYPES, Plugins, given_of, node_of

    calls = calls_of_cases([case])
    plans = calls[0][1]
    major, minor = (9, 0) if run.dry else torch.cuda.get_device_capability()
    begun = time.perf_counter()
    specs = list({spec.name: spec for plan in plans for spec in plan.launches}.values())
    triton_build.build(specs, [10 * major + minor], folder, plans=plans, more=described(calls))
    plugins = Plugins()
    plugin = plugins.create(case.op, node_of(plugins, case, calls, folder).fields(), RUNNING).attach()
    built = {"built_seconds": round(time.perf_counter() - begun, 1), "kernels": len(specs)}
    if run.dry:
        return built
    values = {k: np.nan_to_num(v, nan=3.0) if k == "chunk" else v for k, v in case.inputs.items()}
    tensors = [torch.from_numpy(np.array(v)).cuda() for v in values.values()]
    exact = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in values.items()}
    want = OPERATORS[case.op].reference(**exact, **case.attributes)
    inputs = [given_of(tensor) for tensor in tensors]
    wanted = [torch.from_numpy(np.asarray(each)) for each in (want if isinstance(want, tuple) else (want,))]
    named = {type: getattr(torch, name) for name, type in TYPES.items()}
    kinds = plugin.outputs(inputs, len(wanted))
    outputs = [torch.zeros(shape, dtype=named[kind], device="cuda") for kind, shape in kinds]
    plugin.run(inputs, [given_of(out) for out in outputs], torch.cuda.current_stream().cuda_stream)
    far = max(distance(out.cpu(), each) for out, each in zip(outputs, wanted, strict=True))
    return {**built, "distance": far, "ok": far < LIMITS[precision]}
