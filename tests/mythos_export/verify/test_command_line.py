"""`mythos verify`: failures that are found, saved and replayed, other checkpoints, and wrong requests."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import defects
import pytest
from click.testing import CliRunner
from golden_bundles import GOLDEN, Bundles
from safetensors.torch import save_file

from mythos_export.cli import export_command, mythos
from mythos_export.verify.golden import GOLDEN as GOLDEN_FILE
from mythos_export.verify.golden import Golden, load_golden
from mythos_export.verify.reproduction import ABOUT
from mythos_model import load_checkpoint
from mythos_runtime import read_manifest

CHECKPOINT = GOLDEN / "training_checkpoint" / "step_0000010.pt"


def test_the_command_line_finds_saves_and_replays_a_failure(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only_onnx: None
) -> None:
    folder = defects.defective(bundle, tmp_path / "bad", defects.missing_shared_expert)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(mythos, ["verify", str(folder), "--json", "--threads", "1", "--report", "page"])
    assert result.exit_code == 1
    document = json.loads(result.stdout.splitlines()[-1])
    assert document["verdict"] == "fail"
    (failure,) = document["failures"]
    assert (failure["stage"], failure["tensor"], failure["iteration"]) == ("onnx", "h", 1)
    assert "mythos::moe" in failure["operator"]
    assert failure["error"] > failure["tolerance"] > 0
    assert f"mythos verify --repro {tmp_path / 'bad.repro'}" in result.stderr.replace("\n", "")
    about = json.loads((tmp_path / "bad.repro" / "onnx" / ABOUT).read_text())
    assert about["tensor"] == "h"
    small = load_golden(tmp_path / "bad.repro" / "onnx" / GOLDEN_FILE, read_manifest(bundle).spec).cases[0]
    assert small.inputs["input_ids"].shape[0] == 1 and int(small.inputs["max_loops"]) == 1
    page = (tmp_path / "page" / "parity.html").read_text()
    assert "What is wrong" in page and "mythos::moe" in page

    replayed = CliRunner().invoke(mythos, ["verify", "--repro", "bad.repro/onnx", "--json"])
    assert replayed.exit_code == 1
    assert json.loads(replayed.stdout.splitlines()[-1])["verdict"] == "fail"
    shutil.copy(bundle / "model.onnx", tmp_path / "bad.repro" / "onnx" / "model.onnx")
    changed = CliRunner().invoke(mythos, ["verify", "--repro", "bad.repro/onnx"])
    assert changed.exit_code == 2 and "model.onnx" in changed.stderr  # it is held to its hashes


@pytest.mark.parametrize(
    ("defect", "tensor"),
    [(defects.one_iteration_more, "loops"), (defects.limit_off_by_one, None), (defects.unknown_operator, "graph")],
)
def test_the_command_line_shows_failures_that_have_no_error(
    defect: defects.Defect, tensor: str | None, bundles: Bundles, tmp_path: Path, only_onnx: None
) -> None:
    folder = defects.defective(bundles["mla_prefill"], tmp_path / "bad", defect)
    report = tmp_path / "new" / "page"
    result = CliRunner().invoke(mythos, ["verify", str(folder), "--json", "--threads", "1", "--report", str(report)])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.stderr
    (failure,) = json.loads(result.stdout.splitlines()[-1])["failures"]
    assert failure["tensor"] == tensor or (tensor is None and failure["tensor"] in ("outputs", "loops"))
    assert failure["error"] is None and failure["tolerance"] is None and failure["note"] is None
    assert (tmp_path / "bad.repro" / "onnx").is_dir() == (tensor != "graph")  # beside the bundle, wherever this runs
    assert (report / "parity.html").is_file() and (report / "parity.json").is_file()


def test_verify_against_the_checkpoint(bundle: Path, golden: Golden, only_onnx: None) -> None:
    arguments = ["verify", str(bundle), "--against", str(CHECKPOINT), "--cases", "5", "--json", "--threads", "1"]
    result = CliRunner().invoke(mythos, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout.splitlines()[-1])
    assert document["verdict"] == "pass"
    stage = document["stages"][1]
    assert {"name", "state", "worst_case", "worst_tensor", "error", "tolerance"} <= stage.keys()
    assert stage["cases"] == len(golden.cases) + 5 and stage["error"] <= stage["tolerance"]
    assert document["near_ties"]["total"] == len(document["near_ties"]["listed"])


def test_verify_against_weights_that_bring_no_configuration(bundle: Path, tmp_path: Path, only_onnx: None) -> None:
    state = {name: tensor.clone() for name, tensor in load_checkpoint(CHECKPOINT).state.items()}
    weights = tmp_path / "weights.safetensors"
    save_file(state, weights)
    arguments = ["verify", str(bundle), "--against", str(weights), "--cases", "2", "--seed", "5", "--threads", "1"]
    refused = CliRunner().invoke(mythos, arguments)
    both = (load_checkpoint(CHECKPOINT).sha256, hashlib.sha256(weights.read_bytes()).hexdigest())
    assert refused.exit_code == 2 and all(each in refused.stderr for each in both), refused.output
    assert "Error" not in refused.stderr and "add --other-file" in refused.stderr
    result = CliRunner().invoke(mythos, [*arguments, "--other-file"])
    assert result.exit_code == 0, result.output
    assert "is not the file that the bundle was made from" in " ".join(result.stderr.split())


def test_wrong_requests_of_verify_are_exit_code_2(bundle: Path, bundles: Bundles, tmp_path: Path) -> None:
    other = GOLDEN / "hops" / "step_0001794.pt"
    (tmp_path / "cases.safetensors").write_bytes(b"no")
    for command, arguments, words in (
        (mythos, ["verify"], "give a BUNDLE, or --repro"),
        (mythos, ["verify", str(bundle), "--cases", "3"], "--cases needs --against"),
        (mythos, ["verify", str(bundle), "--seed", "3"], "--seed needs --against"),
        (mythos, ["verify", str(bundle), "--config", "x"], "--config needs --against"),
        (mythos, ["verify", str(bundle), "--other-file"], "--other-file needs --against"),
        (mythos, ["verify", "--repro", "x", "--report", "y"], "--report goes with a BUNDLE"),
        (mythos, ["verify", str(bundle), "--report", str(bundle / "reports")], "belongs to the bundle"),
        (mythos, ["verify", str(bundle), "--against", str(other)], "is another model than the bundle"),
        (mythos, ["verify", "--repro", str(tmp_path)], "manifest.json"),
        (mythos, ["verify", "--repro", str(bundle)], "holds no reproduction"),
        (
            export_command,
            [str(CHECKPOINT), "-o", str(tmp_path / "b"), "--cases", str(tmp_path / "cases.safetensors")],
            "gives no cases",
        ),
    ):
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert words in result.stderr.replace("\n", " ").replace("  ", " "), (arguments, result.stderr)
