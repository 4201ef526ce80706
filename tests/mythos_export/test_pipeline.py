"""The pipeline's own promises: a target is a line, a file is hashed once, nobody is called verified who did not run."""

from __future__ import annotations

import gc
import json
import os
import shutil
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toy_target
from click.testing import CliRunner
from golden_bundles import GOLDEN, Bundles

from mythos_export import export, making, package, pipeline, verification
from mythos_export.cli import export_command, mythos
from mythos_export.errors import PackageError, TargetError
from mythos_export.package import Bundle
from mythos_export.precision import with_activations
from mythos_export.targets.registry import TARGETS, find_target
from mythos_export.targets.target import Built, TargetOptions, check_request
from mythos_export.tensor_file import write_tensors
from mythos_export.verify import stages
from mythos_export.verify.stages.program import Program
from mythos_runtime import BundleError, load, read_manifest
from mythos_runtime.files import FileEntry, describe
from mythos_runtime.manifest import NOT_EXECUTED, SPARE, VERIFIED
from mythos_runtime.program import load_program

CHECKPOINT = GOLDEN / "training_checkpoint" / "step_0000010.pt"


@pytest.fixture(scope="module")
def hashed() -> Counter[str]:
    return Counter()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, hashed: Counter[str]) -> Iterator[pipeline.Exported]:
    """One export for a target that this project does not know, with all that is watched here."""

    def counted(file: Path) -> FileEntry:
        hashed[file.name] += 1
        return describe(file)

    folder = tmp_path_factory.mktemp("pipeline")
    umask = os.umask(0o027)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TARGETS, "toy", toy_target.LINE)
        patch.setattr(package, "describe", counted)
        try:
            yield export(CHECKPOINT, folder / "bundle", "toy", batch="3", dump_passes=folder / "passes")
        finally:
            os.umask(umask)


def test_a_target_is_one_module_and_one_line(exported: pipeline.Exported) -> None:
    found = exported.manifest.target("toy")
    assert found is not None
    assert (found.files, found.details) == (("toy.txt",), {"batch": "3"})
    assert "Loop" in (exported.path / "toy.txt").read_text().splitlines()
    assert read_manifest(exported.path) == exported.manifest


def test_the_command_line_knows_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "toy", toy_target.LINE)
    arguments = [str(CHECKPOINT), "--target", "toy", "-o", "/nowhere/bundle"]
    refused = CliRunner().invoke(export_command, [*arguments, "--batch", "0"])
    assert (refused.exit_code, refused.stderr.strip()) == (2, "error: a batch of 0 is nothing")
    unknown = CliRunner().invoke(export_command, [str(CHECKPOINT), "--target", "abacus"])
    assert unknown.exit_code == 2 and "abacus" in unknown.stderr and "tensorrt" in unknown.stderr


def test_only_what_ran_is_verified(exported: pipeline.Exported) -> None:
    states = {target.name: target.state for target in exported.manifest.targets}
    assert states == {"onnx": VERIFIED, "toy": NOT_EXECUTED}
    assert {"onnx", "program"} <= {stage.name for stage in exported.parity.stages if stage.state == "pass"}
    proofs = {(): False, ("onnx",): True, ("onnx", "tensorrt engine"): False, ("onnx", "program"): True}
    for proof, proven in proofs.items():
        assert verification._is_proven(Built("x", (), proof), exported.parity) is proven


def test_every_file_is_hashed_once_and_listed(exported: pipeline.Exported, hashed: Counter[str]) -> None:
    present = {path.relative_to(exported.path).as_posix() for path in exported.path.rglob("*") if path.is_file()}
    assert present == {*exported.manifest.files, "manifest.json"}
    while_written = exported.manifest.files["weights.safetensors"]
    assert while_written == describe(exported.path / "weights.safetensors")
    names = exported.manifest.files.keys() - {"weights.safetensors"}
    assert hashed == Counter(Path(name).name for name in names)


def test_modes_follow_the_umask(exported: pipeline.Exported) -> None:
    for path in [exported.path, *exported.path.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640), path


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not tell what is mapped")
def test_an_export_lets_go_of_its_files(exported: pipeline.Exported) -> None:
    """Or a process that exports again and again would run out of descriptors, and the disk of space."""
    gc.collect()
    place = str(exported.path.parent)
    assert place not in Path("/proc/self/maps").read_text()
    opened = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert not [path for path in opened if place in path]


def test_each_pass_is_dumped_in_order(exported: pipeline.Exported) -> None:
    names = sorted(path.name for path in (exported.path.parent / "passes" / "onnx").iterdir())
    assert names[0] == "00_before.txt" and any(name.endswith("_name_weights.txt") for name in names)
    assert [name[:2] for name in names] == [f"{number:02d}" for number in range(len(names))]
    texts = [(exported.path.parent / "passes" / "onnx" / name).read_text() for name in names]
    assert "Loop" in texts[0] and texts[0] != texts[-1]


# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("onnx", TargetOptions("bf16"), "bf16 is not offered: .* use --precision fp32"),
        ("tensorrt", TargetOptions("bf16"), "bf16 is not offered: .* use --precision fp32"),
        ("tensorrt", TargetOptions("int4"), "has fp16, fp32; it goes with --target onnx"),
        ("onnx", TargetOptions("fp64"), "has no precision 'fp64', it has fp32, .*, auto$"),
        ("onnx", TargetOptions("fp32", sm="86"), "--sm means nothing to --target onnx; it goes with --target tensorrt"),
        ("onnx", TargetOptions("fp32", plugins=True), "--plugins means nothing"),
    ],
)
def test_what_a_target_cannot_do_is_refused_before_any_work(target: str, options: TargetOptions, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        check_request(find_target(target), options)


def test_activations_are_rounded_only_beside_rounded_weights(tmp_path: Path) -> None:
    assert with_activations("int4", "int8") == "int4a8" and with_activations("fp16", "fp32") == "fp16"
    assert with_activations("int8a8", "int8") == with_activations("int8a8", None) == "int8a8"  # the same by its name
    with pytest.raises(PackageError, match="at --precision int8a8, which rounds .*give --precision int8$"):
        with_activations("int8a8", "fp32")
    with pytest.raises(PackageError, match="found --activations int8 at --precision fp32; expected fp32 or, for int8"):
        export(tmp_path / "absent", tmp_path / "bundle", activations="int8")


def test_an_unknown_part_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="no part 'weights'.*program, golden, reports"):
        export(tmp_path / "absent", tmp_path / "bundle", parts=["golden", "weights"])


@pytest.mark.parametrize("stage", ["capture", "lower"])
def test_a_model_that_cannot_be_captured_or_lowered_is_exit_code_2(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was computed that could be wrong; and torch's errors may have no words at all."""

    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(torch.export if stage == "capture" else torch.onnx, "export", fail)
    if stage == "lower":
        program = torch.export.export(torch.nn.Bilinear(1, 1, 1), (torch.zeros(1), torch.zeros(1)))
        for name in ("capture", "capture_rows"):
            monkeypatch.setattr(making, name, lambda model: SimpleNamespace(program=program, ports=model.spec.ports))
    result = CliRunner().invoke(export_command, [str(CHECKPOINT), "-o", str(tmp_path / "bundle")])
    assert result.exit_code == 2 and "error: torch" in result.stderr and "RuntimeError" in result.stderr, result.stderr
    assert list(tmp_path.iterdir()) == []


# -- parts ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slim(tmp_path: Path, bundles: Bundles) -> Path:
    """A bundle as an export with no parts leaves it."""
    folder = tmp_path / "slim"
    shutil.copytree(bundles["gqa_prefill"], folder)
    bundle = Bundle(folder, read_manifest(folder), ())
    (folder / "manifest.json").unlink()
    bundle.without(package.PARTS).finish()
    return folder


def test_a_slim_bundle_runs(slim: Path, bundles: Bundles) -> None:
    gone = read_manifest(bundles["gqa_prefill"]).files.keys() - read_manifest(slim).files.keys()
    reports = {f"reports/{name}" for name in ("index.html", "parity.html", "parity.json")}
    assert gone == {"model.pt2", "golden.safetensors"} | reports
    assert not any((slim / name).exists() for name in (*gone, "reports"))
    ids = np.arange(6)[None]
    full = load(bundles["gqa_prefill"]).forward(ids)
    assert np.array_equal(load(slim).forward(ids).logits, full.logits)


def test_verify_says_what_a_slim_bundle_lacks(slim: Path, bundles: Bundles) -> None:
    refused = CliRunner().invoke(mythos, ["verify", str(slim)])
    assert refused.exit_code == 2 and "without its golden cases" in refused.stderr and "--against" in refused.stderr
    golden = GOLDEN / "gqa_prefill"
    config = slim.parent / "config.json"
    config.write_text(json.dumps(read_manifest(slim).config))
    checked = CliRunner().invoke(
        mythos, ["verify", str(slim), "--against", str(golden), "--config", str(config), "--cases", "2"]
    )
    assert checked.exit_code == 0, checked.output
    text = " ".join(checked.stdout.split())
    assert "program was not run: the bundle was exported without model.pt2" in text


def test_verify_says_what_is_missing(bundles: Bundles, tmp_path: Path) -> None:
    folder = shutil.copytree(bundles["gqa_prefill"], tmp_path / "bundle")
    (folder / "golden.safetensors").unlink()
    refused = CliRunner().invoke(mythos, ["verify", str(folder)])
    assert refused.exit_code == 2, refused.output
    assert refused.stderr.endswith(
        "lacks its golden cases, golden.safetensors; give its checkpoint with --against, to have fresh ones drawn\n"
    )
    shutil.rmtree(folder / "reports")
    shutil.copy(bundles["gqa_prefill"] / "golden.safetensors", folder)
    place = str(folder / "reports")  # what is written there would be held to the report of the export
    refused = CliRunner().invoke(mythos, ["verify", str(folder), "--report", place])
    assert refused.exit_code == 2 and "belongs to the bundle" in refused.stderr, refused.output
    assert set(package.PARTS.values()) <= set(SPARE)


# -- the program ------------------------------------------------------------------------------------------------------


def test_the_program_holds_no_second_copy_of_the_weights(bundles: Bundles) -> None:
    folder = bundles["gqa_prefill"]
    weights = (folder / "weights.safetensors").stat().st_size
    bare = torch.export.load(folder / "model.pt2")
    whole = load_program(folder / "model.pt2")
    empty = [name for name, tensor in bare.state_dict.items() if tensor.isnan().all()]
    missing = sum(whole.state_dict[name].nbytes for name in empty)
    assert missing > 0.9 * weights
    assert not any(tensor.isnan().any() for tensor in whole.state_dict.values())


def test_what_a_reproduction_takes_of_a_bundle_is_enough_to_load_the_program(tmp_path: Path, bundles: Bundles) -> None:
    folder = bundles["gqa_prefill"]
    for name in Program.files(stages.Bundle(folder, read_manifest(folder))):
        shutil.copy(folder / name, tmp_path)
    assert not any(tensor.isnan().any() for tensor in load_program(tmp_path / "model.pt2").state_dict.values())


def test_a_program_without_its_weights_is_a_bundle_error(tmp_path: Path, bundles: Bundles) -> None:
    shutil.copy(bundles["gqa_prefill"] / "model.pt2", tmp_path)
    with pytest.raises(BundleError, match="weights.safetensors cannot be read"):
        load_program(tmp_path / "model.pt2")
    write_tensors(tmp_path / "weights.safetensors", {})
    with pytest.raises(BundleError, match="the weight .* weights.safetensors; export"):
        load_program(tmp_path / "model.pt2")
