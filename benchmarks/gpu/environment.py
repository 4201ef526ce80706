"""The machine: versions, the GPU, and how fast it was seen to read, to copy and to multiply."""

from __future__ import annotations

import importlib
import platform

import torch

from benchmarks.gpu.run import Run

_MODULES = (
    *("torch", "triton", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "numpy", "safetensors", "hypothesis"),
    *("cuda.core", "cuda.bindings", "tensorrt", "tensorrt_lean", "tensorrt_rtx", "filelock", "psutil"),
)


def main(run: Run) -> None:
    say = run.record.say
    say("python", platform.python_version())
    for name in _MODULES:
        try:
            say(name, getattr(importlib.import_module(name), "__version__", "present"))
        except Exception as error:  # a package may fail in any way when it is imported
            say(name, f"absent: {type(error).__name__}: {str(error)[:120]}")
    say("cuda", [torch.version.cuda, torch.cuda.is_available()])
    if run.dry:
        return
    p = torch.cuda.get_device_properties(0)
    capability = list(torch.cuda.get_device_capability())
    memory = {"bytes": p.total_memory, "multiprocessors": p.multi_processor_count, "capability": capability}
    say("gpu", {"name": p.name, **memory})
    with run.record.step("driver"):
        import subprocess

        query = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
        say("driver", subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip())
    size = 1 << 31
    a = torch.empty(size, dtype=torch.uint8, device="cuda").random_()
    b = torch.empty_like(a)
    say("copy_bytes_per_second", 2 * size / run.seconds(lambda: b.copy_(a)))
    say("read_bytes_per_second", size / run.seconds(lambda: a.view(torch.int64).sum()))
    x, y = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    say("bf16_flops", 2 * 8192**3 / run.seconds(lambda: x @ y))
    say("launch_us", round(run.seconds(lambda: torch.cuda._sleep(1), 200) * 1e6, 2))
    host = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=True)
    say("to_device_bytes_per_second", host.numel() / run.seconds(lambda: a[: host.numel()].copy_(host)))
