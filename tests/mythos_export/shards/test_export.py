"""`--expert-shards`, from the checkpoint to a verified bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from golden_bundles import GOLDEN, Bundles
from sharded_bundles import split

from mythos_export import export
from mythos_export.cli import export_command
from mythos_export.errors import ParityError
from mythos_export.verify import verify_bundle
from mythos_export.verify.stages.shards import ShardBodies
from mythos_runtime.cli import mythos
from mythos_runtime.files import describe
from mythos_runtime.manifest import read_manifest

CHECKPOINT = next((GOLDEN / "training_checkpoint").glob("*.pt"))
STAGES = {"shards", "shards, CPU kernels"}
REFUSED: dict[str, tuple[list[str], str]] = {
    "too many": (["--expert-shards", "5"], "the model has 4 experts, so there can be 1 to 4"),
    "another target": (["--expert-shards", "2", "--target", "tensorrt"], "--expert-shards means nothing to --target"),
    "float16": (["--expert-shards", "2", "--precision", "fp16"], "goes with fp32, int8 and int4"),
    "verified later": (["--expert-shards", "2", "--verify", "later"], "do not go together"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_any_work(case: str, tmp_path: Path) -> None:
    options, words = REFUSED[case]
    result = CliRunner().invoke(export_command, [str(CHECKPOINT), "-o", str(tmp_path / "bundle"), *options])
    assert result.exit_code == 2 and words in " ".join(result.stderr.split()) and not list(tmp_path.iterdir())


def test_a_model_without_experts_is_refused(tmp_path: Path) -> None:
    case = Path(__file__).parents[2] / "golden_families" / "ouro_prefill"
    result = CliRunner().invoke(export_command, [str(case), "-o", str(tmp_path / "bundle"), "--expert-shards", "2"])
    assert result.exit_code == 2 and "this model has none of them" in " ".join(result.stderr.split())


@pytest.mark.slow
def test_a_wrong_expert_is_found_and_named(bundles: Bundles, tmp_path: Path) -> None:
    """One weight of one expert, with a manifest that says it belongs so."""
    bundle = split(bundles["hops"], tmp_path / "bundle", 2)
    file = bundle / "experts-2-of-2.safetensors"
    content = bytearray(file.read_bytes())
    (length,) = np.frombuffer(content, np.uint64, 1)
    content[8 + int(length) + 3] ^= 0x40
    file.write_bytes(content)
    document = json.loads((bundle / "manifest.json").read_text())
    document["files"][file.name] = vars(describe(file))
    (bundle / "manifest.json").write_text(json.dumps(document))
    parity = verify_bundle(bundle, read_manifest(bundle), kinds=(ShardBodies,))
    failure, half = parity.stages[-1].failure, read_manifest(bundle).config["n_experts"] // 2
    assert failure is not None and f"experts [{half}] of the mixture differ" in failure.problem.text
    assert "experts-2-of-2.onnx: recurrent.block.ffn.routed_" in failure.problem.text
    with pytest.raises(ParityError):
        parity.raise_unless_passed()


@pytest.mark.slow
@pytest.mark.parametrize(("verification", "state"), [("full", "verified"), ("twin", "verified on a reduced twin")])
def test_the_pieces_are_verified_inside_the_loop_too(verification: str, state: str, tmp_path: Path) -> None:
    exported = export(CHECKPOINT, tmp_path / "bundle", expert_shards=4, verification=verification)
    assert exported.parity is not None and exported.parity.passed
    stages = {stage.name: stage for stage in (*exported.parity.stages, *exported.parity.whole)}
    assert stages.keys() >= STAGES and stages["shards"].results
    if verification == "twin":
        assert "whole model, shards, CPU kernels" in stages
        weighed = {each.artifact: each for each in stages["whole model, weights"].weighed}
        assert {"route.onnx", "shared.onnx", "experts-4-of-4.onnx"} <= weighed.keys()
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.targets[0].state == state and "mythos::expert_sum" in manifest.operators
    result = CliRunner().invoke(mythos, ["verify", str(tmp_path / "bundle"), "--json"])
    assert result.exit_code == 0, result.output
    names: Any = [stage["name"] for stage in json.loads(result.stdout.splitlines()[-1])["stages"]]
    assert set(names) >= STAGES and "rows" not in names
    said = CliRunner().invoke(mythos, ["inspect", str(tmp_path / "bundle")]).output
    assert "in 4 shards" in " ".join(said.split())
