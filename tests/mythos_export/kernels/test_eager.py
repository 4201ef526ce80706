"""What computes the operators of model.pt2, device by device."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_bundles import Bundles

from mythos_export.kernels import eager

ROOT = Path(__file__).parents[3]
# A process of its own: kernels are registered for good, and the interpreter is chosen before they are defined.
PROGRAM = """
import importlib.metadata, json, os, sys
import numpy as np
from mythos_export.kernels.eager import register
from mythos_runtime import load
from mythos_runtime.torch_device import KERNELS_ENTRY_POINT

class Entry:  # as the installed package names it
    def load(self): return register

found = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **of: [Entry()] if of.get("group") == KERNELS_ENTRY_POINT else found(**of)
result = []
for wanted in ("none", ""):
    os.environ["MYTHOS_TRITON"] = wanted
    model = load(sys.argv[1], backend="eager")
    out = model.forward(np.arange(6).reshape(2, 3), max_loops=2)
    result.append([model.session.description, out.depth.tolist(), out.logits.tolist()])
print(json.dumps(result))
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="the package triton is not installed")
def test_the_kernels_serve_the_captured_program(bundles: Bundles) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PROGRAM, str(bundles["mla_decode"])]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    (plain, depth, expected), (words, triton_depth, logits) = json.loads(run.stdout.splitlines()[-1])
    assert plain.endswith("operators: plain PyTorch (MYTHOS_TRITON is none)")
    assert "operators: Triton 3" in words and words.endswith("kernels, interpreted")
    assert triton_depth == depth
    difference = np.abs(np.array(logits) - np.array(expected)).max()
    assert 0 < difference <= 2e-5 * np.abs(expected).max()  # 0: the kernels were not called


def test_what_a_gpu_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = []

    def note(device: str) -> str:
        registered.append(device)
        return "Triton kernels"

    monkeypatch.setattr(eager, "_register", note)
    monkeypatch.delenv(eager.VARIABLE, raising=False)
    assert eager.register("cuda") == "Triton kernels" and registered == ["cuda"]
    monkeypatch.setenv(eager.VARIABLE, "none")
    assert eager.register("cuda") == "plain PyTorch (MYTHOS_TRITON is none)"
    monkeypatch.delenv(eager.VARIABLE)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert eager.register("cuda") == "plain PyTorch (the package triton is not installed)"
    assert eager.register("xpu") == "plain PyTorch (there are no kernels for xpu)"
    assert registered == ["cuda"]


def test_the_runtime_finds_what_the_package_names() -> None:
    group = "mythos_runtime.eager_kernels"
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, value in project["entry-points"][group].items():
        assert callable(EntryPoint(name, value, group).load())
