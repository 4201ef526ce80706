"""The captured program in PyTorch on a GPU, the operators computed by the Triton kernels.

Written, not executed by this project so far: it needs a GPU. The kernels themselves run in Triton's interpreter in the
tests.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from mythos_export.bench.backends.backend import Backend, Call, Outcome, Setting, port_arrays
from mythos_export.bench.workloads import Case
from mythos_runtime import read_manifest

KERNELS = {"moe": "moe", "mla": "mla_attention", "gqa": "gqa_attention"}
"""Folder under `mythos_export/kernels` to the operator, which is also the name of its Triton function."""


class TritonEager(Backend):
    name = "PyTorch, Triton kernels"

    def missing(self, setting: Setting) -> str | None:
        if read_manifest(setting.bundle, verify_hashes=False).file_ending(".pt2", "model.pt2") is None:
            return "the bundle holds no model.pt2"
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed: pip install 'mythos-export[triton]'"
        torch = importlib.import_module("torch")
        if not torch.cuda.is_available():
            return "PyTorch finds no NVIDIA GPU"
        return None

    def load(self, setting: Setting) -> str:
        import torch
        from torch.export.passes import move_to_device_pass

        import mythos_model.ops  # noqa: F401  (registers the operators that the program calls)

        for folder, operator in KERNELS.items():
            kernel = getattr(importlib.import_module(f"mythos_export.kernels.{folder}.triton"), operator)
            torch.library.register_kernel(f"mythos::{operator}", "cuda", kernel)
        manifest = read_manifest(setting.bundle, verify_hashes=False)
        program = torch.export.load(str(setting.bundle / str(manifest.file_ending(".pt2", "model.pt2"))))
        self._torch: Any = torch
        self._threshold: float = manifest.config["act_threshold"]
        self._module = move_to_device_pass(program, "cuda").module()
        return f"torch {torch.__version__}, {torch.cuda.get_device_name()}, Triton kernels, CUDA events"

    def prepare(self, case: Case) -> Call:
        """The cache lies on the device already; the tokens are copied there in every call, and the logits back."""
        torch = self._torch
        ports = {name: torch.as_tensor(array).cuda() for name, array in port_arrays(case, self._threshold).items()}
        ids = torch.as_tensor(case.ids)

        def call() -> Outcome:
            with torch.no_grad():
                logits, _, loops, _, _ = self._module(*{**ports, "input_ids": ids.cuda()}.values())
                return Outcome(logits[:, -1].cpu().numpy(), int(loops))

        return call

    def seconds(self, call: Call) -> float:
        start, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3
