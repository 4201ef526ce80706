"""OpenVINO on the CPU, from the same plain ONNX file: it reads the Loop, but neither functions nor opset 23. It
computes 64-bit integers in 32 bits, so the rotary angles are in float32 there.

Latency hint, float32 (its default on CPUs with bfloat16 would compute another result), one stream.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from benchmarks.peers.plain import CompiledPeer, Form, angles_in_float32, first_that_builds
from benchmarks.peers.plain_onnx import export_plain
from mythos_export.bench.backends.backend import Call, Outcome, Setting, port_arrays
from mythos_export.bench.workloads import Case


class OpenVino(CompiledPeer):
    name = "OpenVINO"

    def lacks(self) -> str | None:
        if importlib.util.find_spec("openvino") is None:
            return "OpenVINO is not installed: pip install openvino"
        return None

    def load(self, setting: Setting) -> str:
        import openvino

        self.setting, self.core = setting, openvino.Core()
        self.requests: dict[str, Any] = {}
        self.settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": setting.threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,  # the process is pinned already
        }
        return f"openvino {openvino.__version__}, latency hint, one stream, f32, static shapes"

    def compile(self, case: Case) -> str:
        def build(form: Form) -> Any:
            with angles_in_float32():
                file, self.spec = export_plain(case, form, self.setting, "openvino")
            compiled = self.core.compile_model(self.core.read_model(file), "CPU", self.settings)
            request = compiled.create_infer_request()
            request.infer(self._feed(request, case))
            return request

        self.requests[case.workload.name], note = first_that_builds(case, build)
        return note

    def _feed(self, request: Any, case: Case) -> dict[str, np.ndarray]:
        arrays = port_arrays(case, self.spec)
        names = [port.get_any_name() for port in request.model_inputs]
        return {name: arrays[name] for name in names}

    def prepare(self, case: Case) -> Call:
        request = self.requests[case.workload.name]
        feed = self._feed(request, case)

        def call() -> Outcome:
            results = request.infer(feed, share_inputs=True, share_outputs=True)
            return Outcome(results["logits"][:, -1].copy(), int(results["loops"]))

        return call
