"""torch.onnx.export of the model in plain PyTorch, run by ONNX Runtime: what one gets without operators of ours.

The loop exports as one Loop. Attention stays absorbed as `mythos_model.ops` writes it; ONNX Runtime optimizes with all
its passes (the default), for the workload's very shapes.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.plain import CompiledPeer, Form, exported, first_that_builds, plain_model, tensors
from mythos_export.bench.backends.backend import Call, Outcome, Setting, port_arrays
from mythos_export.bench.workloads import Case
from mythos_runtime.spec import LoopSpec

OPSET = 20  # the newest that OpenVINO reads, too


class PlainOnnx(CompiledPeer):
    name = "torch.onnx.export + ONNX Runtime"

    def lacks(self) -> str | None:
        return None if importlib.util.find_spec("onnxruntime") else "ONNX Runtime is not installed"

    def load(self, setting: Setting) -> str:
        import onnxruntime as ort

        self.setting = setting
        self.sessions: dict[str, ort.InferenceSession] = {}
        return f"onnxruntime {ort.__version__}, opset {OPSET}, one Loop, all optimizations, static shapes"

    def compile(self, case: Case) -> str:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self.setting.threads
        options.log_severity_level = 3

        def build(form: Form) -> ort.InferenceSession:
            file, self.spec = export_plain(case, form, self.setting, "plain_onnx")
            session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            session.run(None, self._feed(session, case))
            return session

        self.sessions[case.workload.name], note = first_that_builds(case, build)
        return note

    def _feed(self, session: Any, case: Case) -> dict[str, np.ndarray]:
        names = {port.name for port in session.get_inputs()}
        return {name: array for name, array in port_arrays(case, self.spec).items() if name in names}

    def prepare(self, case: Case) -> Call:
        session = self.sessions[case.workload.name]
        feed = self._feed(session, case)

        def call() -> Outcome:
            logits, loops = session.run(["logits", "loops"], feed)
            return Outcome(logits[:, -1], int(loops))

        return call


def export_plain(case: Case, form: Form, setting: Setting, kind: str) -> tuple[Path, LoopSpec]:
    """model.onnx for a case's shapes in a folder of its own, and the spec of the model."""
    assert setting.checkpoint is not None
    warnings.simplefilter("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    model = plain_model(setting.checkpoint, form)
    spec = model.spec
    program = exported(model, tensors(case, spec))
    converted = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        verbose=False,
        input_names=[port.name for port in spec.ports.inputs],
        output_names=[port.name for port in spec.ports.outputs],
    )
    assert converted is not None
    place = setting.scratch / kind / f"{case.workload.name} {form.__name__}"
    place.mkdir(parents=True)
    converted.save(str(place / "model.onnx"), external_data=True)
    return place / "model.onnx", spec
