"""How far an export is verified: by a reduced twin where the whole is too large, or later; and where it is said."""

from __future__ import annotations

import json
import shutil
import struct
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from click.testing import CliRunner
from golden_bundles import GOLDEN, config_of
from golden_families import GoldenCase
from safetensors.torch import save_file

from mythos_export import export, verification
from mythos_export.cli import export_command, mythos
from mythos_export.errors import CasesError, ParityError
from mythos_export.making import load as load_structure
from mythos_export.pipeline import Exported
from mythos_export.verification import FULL, TWIN, choose, verify_later
from mythos_export.verify import reduced as whole
from mythos_export.verify.golden import GOLDEN as CASES
from mythos_export.verify.golden import load_golden
from mythos_export.verify.past import Past
from mythos_export.verify.stages import Bundle, FunctionBodies, Program, RowBodies, onnxruntime, operators
from mythos_export.verify.weights import prints
from mythos_model import load_checkpoint
from mythos_model.checkpoint.reduced import reduced, reductions
from mythos_runtime import load, read_manifest
from mythos_runtime.errors import NotVerified
from mythos_runtime.manifest import NOT_VERIFIED, TWIN_VERIFIED, VERIFIED, Manifest

OTHER = GOLDEN / "hops" / "step_0001794.pt"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with more layers and experts than a twin has."""
    folder = tmp_path_factory.mktemp("checkpoint")
    shutil.copy(GOLDEN / "mla_prefill" / "model.safetensors", folder)
    (folder / "config.json").write_text(json.dumps(config_of("mla_prefill")["config"]))
    return folder


@pytest.fixture(scope="module")
def twin(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(source, tmp_path_factory.mktemp("twin") / "bundle", verification="twin")


@pytest.fixture(scope="module")
def later(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(source, tmp_path_factory.mktemp("later") / "bundle", verification="later").path


def test_a_twin_has_the_widths_and_the_first_of_the_weights(source: Path) -> None:
    for checkpoint in (load_checkpoint(source), *(_family(name) for name in ("ouro", "huginn", "nanbeige"))):
        small = reduced(checkpoint)
        model = small.model()
        assert model.sizes.dim == checkpoint.model().sizes.dim
        for name, tensor in small.state.items():
            corner = checkpoint.state[name][tuple(slice(size) for size in tensor.shape)]
            assert np.array_equal(tensor.float().numpy(), corner.float().numpy())
    mine = load_checkpoint(source)
    assert {"prelude_layers 1 of 2", "n_experts 3 of 8"} <= set(reductions(mine, reduced(mine)))


def _family(name: str):  # type: ignore[no-untyped-def]
    case = GoldenCase.load(f"{name}_prefill")
    return load_checkpoint(case.folder, case.config, exit_rule=case.exit_rule)


def test_a_twin_is_held_to_every_case_and_the_model_to_its_weights_and_a_few(twin: Exported) -> None:
    parity, (target,) = twin.parity, twin.manifest.targets
    assert target.state == TWIN_VERIFIED and parity is not None and parity.passed
    assert {"eager", "program", "onnx", "rows"} <= {stage.name for stage in parity.stages if stage.state == "pass"}
    weights, eager, *others = parity.whole
    assert weights.name == "whole model, weights" and {each.artifact for each in weights.weighed} == {
        f"{graph}.onnx" for graph in twin.manifest.spec.graphs
    }
    assert all(each.equal > 5 and len(each.derived) <= 2 for each in weights.weighed)
    assert eager.name == "whole model, eager" and len(eager.results) == 4
    assert [stage.name for stage in others] == ["whole model, onnx, CPU kernels", "whole model, rows, looped"]
    assert parity.scope is not None and "n_experts 3 of 8" in parity.scope and parity.scope in parity.verdict()
    page = (twin.path / "reports" / "parity.html").read_text()
    assert "A reduced twin on the same weights" in page and "whole model, weights" in page
    document = json.loads((twin.path / "reports" / "parity.json").read_text())
    assert document["scope"] == parity.scope and len(document["whole"]) == 4
    assert not list(twin.path.glob(".twin*")) and read_manifest(twin.path) == twin.manifest
    shown = CliRunner().invoke(mythos, ["inspect", str(twin.path)])
    assert TWIN_VERIFIED in " ".join(shown.stdout.split()) and "too large to be verified as a whole" in shown.stdout


def test_a_weight_that_no_case_visits_is_found_in_the_whole_model(twin: Exported, tmp_path: Path) -> None:
    folder = shutil.copytree(twin.path, tmp_path / "bundle")
    text = bytearray((folder / "weights.safetensors").read_bytes())
    header = json.loads(text[8 : 8 + struct.unpack("<Q", text[:8])[0]])
    last = header["recurrent.block.ffn.routed_down"]["data_offsets"][1] + 8 + struct.unpack("<Q", text[:8])[0]
    text[last - 4 : last] = struct.pack("<f", struct.unpack("<f", text[last - 4 : last])[0] * 1.001)
    (folder / "weights.safetensors").write_bytes(text)
    golden = load_golden(folder / CASES, twin.manifest.spec)
    stages, _ = whole.verify_whole(folder, twin.manifest, golden, lambda step, part=None: None)
    assert stages[0].failure is not None and "rows 7 differ" in stages[0].failure.problem.text


def test_linked_weights_are_looked_at_once(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "_WHOLE", 0)
    done = export(shutil.copytree(source, tmp_path / "a"), tmp_path / "b", weights="link", verification="later")
    expected, links = prints(load_checkpoint(source).model()), done.manifest.links
    stage = whole._weights(done.path, done.manifest, expected)
    assert links is not None and stage.failure is None
    lines = {each.artifact: each for each in stage.weighed}
    experts = [tensor.shape[0] for tensor in links.tensors.values() if len(tensor.shape) == 3]
    count = len(links.tensors) + sum(experts) - len(experts)
    assert len(experts) == 2 and lines[whole.LINKED].equal == lines[whole.LINKED].tensors == count
    # The last expert begins somewhere else, by links that hold together.
    name = next(name for name, tensor in links.tensors.items() if len(tensor.shape) == 3)
    *others, last = links.tensors[name].stretches
    tensor = replace(links.tensors[name], stretches=(*others, replace(last, start=last.start - 64)))
    moved = replace(links, tensors={**links.tensors, name: tensor})
    failure = whole._weights(done.path, replace(done.manifest, links=moved), expected).failure
    assert failure is not None and "experts [7] of the mixture differ" in failure.problem.text


@pytest.mark.slow
def test_a_twin_stands_for_a_linked_model(source: Path, tmp_path: Path) -> None:
    done = export(shutil.copytree(source, tmp_path / "a"), tmp_path / "b", weights="link", verification="twin")
    assert done.parity is not None and done.parity.passed and done.manifest.targets[0].state == TWIN_VERIFIED
    assert whole.LINKED in {each.artifact for each in done.parity.whole[0].weighed}


def test_later_is_said_everywhere(later: Path) -> None:
    manifest = read_manifest(later)
    assert [target.state for target in manifest.targets] == [NOT_VERIFIED] and manifest.doubt is not None
    assert "golden.safetensors" not in manifest.files and not (later / "reports").exists()
    with pytest.warns(NotVerified, match="nothing in it was compared"):
        load(later)
    for command in (["inspect", str(later)], ["run", str(later), "--ids", "1,2", "--max-new-tokens", "1"]):
        said = CliRunner().invoke(mythos, command)
        assert said.exit_code == 0 and "not verified" in " ".join(said.output.split()).lower(), said.output
    refused = CliRunner().invoke(mythos, ["verify", str(later)])
    assert refused.exit_code == 2 and "--against" in refused.stderr


@pytest.mark.slow
def test_later_comes(source: Path, later: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect is found then, too; and the bundle says afterwards what was found."""
    folder = shutil.copytree(later, tmp_path / "bundle")
    with pytest.raises(CasesError, match="is another model"):
        verify_later(folder, read_manifest(folder), OTHER)
    resaved = tmp_path / "resaved.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_checkpoint(source).state.items()}, resaved)
    with pytest.raises(CasesError, match="is not what the bundle was made from"):
        verify_later(folder, read_manifest(folder), resaved)
    broken = shutil.copytree(later, tmp_path / "broken")
    weights = bytearray((broken / "weights.safetensors").read_bytes())
    weights[-2] ^= 0xFF
    (broken / "weights.safetensors").write_bytes(weights)
    monkeypatch.setattr(verification, "choose", lambda loaded: TWIN)
    with pytest.raises(ParityError, match="whole model"):
        verify_later(broken, read_manifest(broken, verify_hashes=False), source)
    assert read_manifest(broken, verify_hashes=False).doubt is not None
    monkeypatch.undo()
    done = CliRunner().invoke(mythos, ["verify", str(folder), "--against", str(source)])
    assert done.exit_code == 0 and f"is {VERIFIED}" in " ".join(done.stdout.split()), done.output
    manifest = read_manifest(folder)
    assert [target.state for target in manifest.targets] == [VERIFIED] and "reports/parity.html" in manifest.files
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotVerified)
        load(folder)


def test_a_model_is_verified_as_a_whole_unless_it_is_large(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_structure(source, "int4")
    assert choose(loaded) == FULL
    monkeypatch.setattr(verification, "LARGE", 1000)
    assert choose(loaded) == TWIN
    refused = CliRunner().invoke(export_command, [str(source), "--verify", "never"])
    assert refused.exit_code == 2 and "later" in refused.stderr


def test_portable_bodies_are_run_where_there_is_room_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators.psutil, "virtual_memory", lambda: SimpleNamespace(available=4 * 10**9))

    def bundle(precision: str, size: float) -> Bundle:
        manifest = SimpleNamespace(
            precision=precision, links=None, files={"weights.safetensors": SimpleNamespace(bytes=int(size))}
        )
        return Bundle(Path(), cast(Manifest, manifest))

    for stage in (FunctionBodies, RowBodies):
        assert stage.lacking(bundle("fp32", 4e9)) is stage.lacking(bundle("int4", 1e8)) is None
        reason = stage.lacking(bundle("int4", 6e8))
        assert reason is not None and "about 21 GB, and 4 GB are free" in reason


def test_plain_forms_of_many_rounded_weights_are_given_the_calls_of_few_loops(twin: Exported) -> None:
    entry = SimpleNamespace(bytes=10**8)
    for precision, loops, short in (("int4", 3, True), ("int4", 4, False), ("fp32", 99, True)):
        files = {"weights.safetensors": entry}
        manifest = SimpleNamespace(precision=precision, files=files, links=None, spec=twin.manifest.spec)
        large, inputs = Bundle(Path(), cast(Manifest, manifest)), {"max_loops": np.array(loops)}
        assert large.is_short(inputs) is Program.takes(large, inputs) is FunctionBodies.takes(large, inputs) is short


def test_a_large_model_is_looked_into_without_copies_of_its_weights(
    twin: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is folded, and the twin's graph is in the folder only while it is opened."""
    bundle = Bundle(twin.path, twin.manifest, 1)
    inputs = Past.empty(bundle.spec, 1, 0, 2).inputs(np.array([[1, 2, 3]]), [3], 2, early_exit=False)
    expected = FunctionBodies.open(bundle).answer(inputs).outputs
    before = sorted(path.name for path in twin.path.iterdir())
    kept = onnxruntime.entries_of(bundle)
    monkeypatch.setattr(onnxruntime, "LARGE", 0)
    assert not set(onnxruntime.entries_of(bundle)) & set(kept)
    found = FunctionBodies.open(bundle).answer(inputs).outputs
    assert sorted(path.name for path in twin.path.iterdir()) == before
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)
