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
from golden_families import CLOSE, GoldenCase
from safetensors.torch import save_file
from toy_family import FAMILY, Toy, ToyConfig

from mythos_export import export
from mythos_export.capture import capture, capture_rows
from mythos_export.cli.export import export_command
from mythos_export.lower import lower, lower_rows
from mythos_export.package import package
from mythos_export.progress import silent
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import TargetOptions, build
from mythos_model import families, load_checkpoint
from mythos_runtime import load

NATIVE = Path(__file__).parents[2] / "build" / "native"
MYTHOS_RUN, MYTHOS_DUMP = NATIVE / "mythos_run", NATIVE / "mythos_dump"


def bundle_of(case: GoldenCase, folder: Path, exit_rule: str | None = None, **config: object) -> Path:
    """A bundle of a golden case's checkpoint, made as an export makes it, but for the verification."""
    checkpoint = load_checkpoint(case.folder, config, exit_rule=exit_rule)
    model = checkpoint.model(torch.float32)
    captured = capture(model)
    lowered = lower(captured, folder)
    lower_rows(capture_rows(model), folder)
    built = build(lowered, folder, find_target("onnx"), TargetOptions("fp32"), silent)
    package(folder, checkpoint, "fp32", captured, lowered, built).finish()
    return folder


@pytest.mark.parametrize(
    ("name", "exit_rule", "config"),
    [  # of each exit rule and way to call it; the graph is the same for the others, which eager PyTorch answers
        ("ouro_decode", None, {}),
        ("ouro_exit_decode", None, {"early_exit_threshold": 0.5}),
        ("ouro_exit_at_step", None, {"early_exit_step": 1}),
        ("ouro_saturated_gate", None, {}),
        ("ouro_weighted_exit", "weighted", {}),
    ],
)
def test_golden_cases_in_both_runtimes(
    name: str, exit_rule: str | None, config: dict[str, object], tmp_path: Path
) -> None:
    case = GoldenCase.load(name)
    bundle = bundle_of(case, tmp_path, exit_rule, **config)
    model = load(bundle, threads=1)
    cache = model.new_cache(*case.ids.shape) if len(case.chunks) > 1 else None

    def forward(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        out = model.forward(case.ids[:, start:stop], cache=cache)
        return out.logits, out.depth

    case.check(forward)
    if MYTHOS_DUMP.exists():
        rows = ";".join(",".join(map(str, row)) for row in case.ids.tolist())
        dumped = tmp_path.parent / f"{name}.logits"
        subprocess.run([MYTHOS_DUMP, bundle, rows, dumped, "0", "0", "4"], capture_output=True, check=True)
        expected = case.io["logits"]
        whole, *halves = np.split(np.fromfile(dumped, np.float32), [expected.size])
        cut = (expected.shape[1] + 1) // 2
        chunks = np.concatenate([part.ravel() for part in (expected[:, :cut], expected[:, cut:])])
        assert np.abs(whole - expected.ravel()).max() <= CLOSE * np.abs(expected).max()
        assert np.abs(halves[0] - chunks).max() <= CLOSE * np.abs(expected).max()


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
