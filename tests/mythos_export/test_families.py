"""Every family goes through the same pipeline: golden cases as ONNX, and a family that nobody here has heard of."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from golden_families import GoldenCase
from safetensors.torch import save_file
from test_ouro import changes, knobs
from toy_family import FAMILY, Toy, ToyConfig

from mythos_export import export
from mythos_export.capture import capture
from mythos_export.cli.export import export_command
from mythos_export.lower import lower
from mythos_model import families, load_checkpoint
from mythos_runtime import load
from mythos_runtime.model import Model
from mythos_runtime.ort import OrtSession
from mythos_runtime.session import Options

MYTHOS_RUN = Path(__file__).parents[2] / "build" / "native" / "mythos_run"


# Of each exit rule and way to call it; the graph is the same for the others, which eager PyTorch answers.
@pytest.mark.parametrize("name", ["ouro_decode", "ouro_exit_decode", "ouro_saturated_gate", "ouro_weighted_exit"])
def test_golden_cases_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    case = GoldenCase.load(name)
    checkpoint = load_checkpoint(case.folder, changes(case.call))
    lowered = lower(capture(checkpoint.model(torch.float32)), tmp_path)
    session = OrtSession(lowered.path, lowered.spec.ports, Options(threads=1, provider="cpu"))
    model, options = Model(lowered.spec, session), knobs(case.call)
    cached = len(case.chunks) > 1
    cache = model.new_cache(*case.ids.shape, options.get("max_loops")) if cached else None

    def forward(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        out = model.forward(case.ids[:, start:stop], cache=cache, **options)
        return out.logits, out.depth

    case.check(forward)


def test_the_command_lists_the_families() -> None:
    listed = CliRunner().invoke(export_command, ["--list-families"])
    assert listed.exit_code == 0
    assert [line.partition(":")[0] for line in listed.output.splitlines()] == ["openmythos", "ouro", "huginn"]


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Path]:
    """A checkpoint of the toy family, which is known while the test runs."""
    torch.manual_seed(4)
    model = Toy(ToyConfig())
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(ToyConfig().to_dict() | {"model_type": "toy"}))
    before = list(families.FAMILIES)
    families.register(FAMILY)
    yield tmp_path
    families.FAMILIES[:] = before


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_a_family_from_outside_is_exported_verified_and_run(toy: Path, precision: str) -> None:
    exported = export(toy, toy / "bundle", precision=precision)
    assert exported.parity.passed
    assert exported.manifest.spec.cache("layers") is None
    assert [tensor.name for tensor in exported.manifest.spec.trace] == [
        *("entries", "h", "leave", "left", "answer", "depth", "halted")
    ]
    model = load(toy / "bundle")
    generated = model.generate_all([[3, 1, 4, 1, 5]], max_new_tokens=8)
    eager = load_checkpoint(toy).model(torch.float32)
    if precision == "fp32":
        whole = torch.tensor([[3, 1, 4, 1, 5, *generated.tokens[0]]])
        chosen = eager(whole, early_exit=False).logits.argmax(-1)
        assert generated.tokens[0] == chosen[0, 4:-1].tolist()
    if MYTHOS_RUN.exists():
        command = [MYTHOS_RUN, toy / "bundle", "--ids", "3,1,4,1,5", "--max-new-tokens", "8", "--json"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert json.loads(said.splitlines()[-1])["tokens"] == generated.tokens[0]
