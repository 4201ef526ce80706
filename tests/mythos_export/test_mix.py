"""`--precision auto`: formats by group, within a bound that is measured on the mix itself, through verification and
the runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from golden_bundles import GOLDEN, config_of
from safetensors.torch import save_file

from mythos_export import mix as mix_module
from mythos_export.cli import export_command
from mythos_export.errors import MixError
from mythos_export.mix import Mix, choose_mix
from mythos_export.plan.estimate import need
from mythos_export.plan.models import read_model
from mythos_export.precision import PRECISIONS, precision_of
from mythos_model import Checkpoint, load_checkpoint
from mythos_model.quantized import Quantized, groups_of
from mythos_runtime import load, read_manifest
from mythos_runtime.cli import mythos
from mythos_runtime.manifest import MIXED

CASE = "gqa_prefill"
BOUND = 5e-2


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(GOLDEN / CASE / "model.safetensors", **config_of(CASE))


@pytest.fixture(scope="module")
def ids(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mix") / "ids.safetensors"
    rows = np.random.default_rng(3).integers(0, checkpoint.config.vocab_size, (6, 9))
    save_file({"input_ids": torch.from_numpy(rows)}, path)
    return path


@pytest.fixture(scope="module")
def mix(checkpoint: Checkpoint, ids: Path) -> Mix:
    """Of a bound that some steps keep to, and some do not."""
    return choose_mix(checkpoint, BOUND, ids)


def _kl(checkpoint: Checkpoint, formats: dict[str, str], ids: Path) -> float:
    """The divergence once more, by the modules that hold integers."""
    rows = mix_module.given_ids(checkpoint.model(torch.float32).spec, ids)
    with torch.no_grad():
        plain, rounded = (
            torch.log_softmax(model(torch.from_numpy(rows)).logits.double(), -1)
            for model in (checkpoint.model(torch.float32), precision_of(MIXED, formats).model(checkpoint))
        )
    return float((plain.exp() * (plain - rounded)).sum(-1).mean())


def test_the_mix_keeps_to_the_bound(checkpoint: Checkpoint, ids: Path, mix: Mix) -> None:
    assert 0 < mix.kl <= mix.max_kl
    assert mix.kl == pytest.approx(_kl(checkpoint, mix.formats, ids), rel=1e-3)
    state = precision_of(MIXED, mix.formats).structure(checkpoint).state_dict()
    assert mix.bytes == sum(tensor.nbytes for tensor in state.values()) < mix.plain_bytes
    assert {step.kept for step in mix.steps} == {True, False} and len(set(mix.formats.values())) == 2
    kept = [step for step in mix.steps if step.kept]
    assert (kept[-1].kl, kept[-1].bytes) == (mix.kl, mix.bytes)
    for step in mix.steps:  # whatever was not kept would have been too much
        assert step.kept == (step.kl <= mix.max_kl)


def test_the_same_is_chosen_again(checkpoint: Checkpoint, ids: Path, mix: Mix) -> None:
    assert choose_mix(checkpoint, BOUND, ids) == mix


def test_more_is_allowed_and_less_is_stored(checkpoint: Checkpoint, ids: Path, mix: Mix) -> None:
    everything = choose_mix(checkpoint, 10.0, ids)
    assert set(everything.formats.values()) == {"int4"} and everything.bytes < mix.bytes
    whole = PRECISIONS["int4"].structure(checkpoint)
    assert everything.bytes == sum(tensor.nbytes for tensor in whole.state_dict().values())
    assert everything.formats.keys() == groups_of(checkpoint.model(torch.float32), whole.keeps).keys()


@pytest.mark.parametrize(("bound", "text"), [(1e-12, "no group of matrices can be rounded"), (-1.0, "from 0 on")])
def test_a_bound_that_nothing_keeps_to(checkpoint: Checkpoint, ids: Path, bound: float, text: str) -> None:
    with pytest.raises(MixError, match=text):
        choose_mix(checkpoint, bound, ids)


def test_a_group_that_is_not_there_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ValueError, match="there is no group of matrices 'nothing'"):
        precision_of(MIXED, {"nothing": "int8"}).structure(checkpoint)


def _exported(bundle: Path, ids: Path, *more: str) -> Any:
    arguments = [str(GOLDEN / CASE / "model.safetensors"), "-o", str(bundle), "--cases", str(ids), "--json"]
    config = bundle.parent / "config.json"
    config.write_text(json.dumps(config_of(CASE)["config"]))
    return CliRunner().invoke(export_command, [*arguments, "--config", str(config), *more])


@pytest.mark.parametrize("more", [["--precision", "auto"], ["--max-kl", "1"]])
def test_auto_and_its_bound_go_together(more: list[str], ids: Path, tmp_path: Path) -> None:
    result = _exported(tmp_path / "bundle", ids, *more)
    assert result.exit_code == 2 and "--precision auto and --max-kl go together" in result.output


@pytest.mark.slow
def test_a_bundle_of_mixed_formats_is_verified_and_runs(ids: Path, mix: Mix, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    result = _exported(bundle, ids, "--precision", "auto", "--max-kl", str(BOUND))
    assert result.exit_code == 0, result.output
    document = json.loads(result.output.splitlines()[-1])
    assert document["targets"] == {"onnx": "verified"} and document["mix"]["formats"] == mix.formats
    manifest = read_manifest(bundle)
    assert (manifest.precision, manifest.formats) == (MIXED, mix.formats)
    assert json.loads((bundle / "reports" / "mix.json").read_text()) == document["mix"]
    for page in ("reports/mix.html", "card.md"):
        text = (bundle / page).read_text()
        assert all(group in text and form in text for group, form in mix.formats.items())
    graph = onnx.load(bundle / "step.onnx", load_external_data=False)
    formats = {a.s.decode() for node in graph.graph.node for a in node.attribute if a.name == "format"}
    assert formats <= {"int8", "int4"} and formats
    shown = CliRunner().invoke(mythos, ["inspect", str(bundle)])
    assert "Formats of its matrices: " in shown.output and shown.exit_code == 0
    model = load(bundle, threads=1)
    rows = np.random.default_rng(0).integers(0, 20, (2, 5))
    checkpoint = load_checkpoint(GOLDEN / CASE / "model.safetensors", **config_of(CASE))
    eager = precision_of(MIXED, mix.formats).model(checkpoint)
    assert any(isinstance(module, Quantized) for module in eager.modules())
    with torch.no_grad():
        expected = eager(torch.from_numpy(rows)).logits.numpy()
    assert np.abs(model.forward(rows).logits - expected).max() <= 2e-5 * np.abs(expected).max()
    planned = read_model(str(bundle))
    assert need(planned, MIXED).weights == pytest.approx(manifest.files["weights.safetensors"].bytes)
