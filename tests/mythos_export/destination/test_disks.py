"""Full disks: one line, exit code 3, nothing half written, whichever of the writers meets it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import onnx_ir as ir
import pytest
import torch
from golden_bundles import GOLDEN, Bundles

from mythos_export.destination import staged
from mythos_export.destination.storage import Guarded, check_room
from mythos_export.errors import LowerError, PackageError, StorageError
from mythos_export.program_file import write_program
from mythos_export.weights_file import WeightsFile
from mythos_runtime.program import load_program

FULL = Path("/dev/full")
needs_a_full_device = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@needs_a_full_device
def test_torchs_writer_survives_a_full_disk(bundles: Bundles) -> None:
    """Left to itself it ends the process (SIGABRT)."""
    program = load_program(bundles["gqa_prefill"] / "model.pt2")
    with pytest.raises(OSError, match="No space left"):
        write_program(program, cast(WeightsFile, SimpleNamespace(places={}, place=lambda tensor: None)), FULL)
    assert not any(tensor.isnan().any() for tensor in program.state_dict.values())


@needs_a_full_device
def test_the_graphs_writer_says_so(bundles: Bundles) -> None:
    with pytest.raises(OSError, match="No space left"):
        ir.save(ir.load(bundles["gqa_prefill"] / "model.onnx"), FULL)


def test_the_guarded_file_holds_what_was_written(tmp_path: Path) -> None:
    with Guarded(tmp_path / "x") as file:
        file.write(b"ab")
        file.write(memoryview(torch.arange(2).numpy()))
    assert (tmp_path / "x").read_bytes() == b"ab" + torch.arange(2).numpy().tobytes()


@pytest.mark.parametrize("wrapped", [False, True])
def test_errors_of_the_disk_are_known_under_other_names(tmp_path: Path, wrapped: bool) -> None:
    words = "cannot write .*/bundle: the disk quota is used up; no bundle was written"
    with pytest.raises(StorageError, match=words), staged(tmp_path / "bundle", force=False):
        try:
            raise OSError(122, "Disk quota exceeded")
        except OSError as error:
            if wrapped:
                raise LowerError("torch.onnx could not convert the program") from error
            raise
    assert list(tmp_path.iterdir()) == []


def test_other_errors_keep_their_own_names(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    unreadable = PermissionError(13, "Permission denied", str(tmp_path / "secret"))
    for error in (PackageError("a part"), unreadable, KeyError()):
        with pytest.raises(type(error)), staged(tmp_path / "bundle", force=False):
            raise error
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_what_cannot_fit_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    check_room(tmp_path, 1)
    with pytest.raises(StorageError, match=r"takes at least 1000000000000000\.0 MB, and the disk has .* MB left"):
        check_room(tmp_path, 10**21)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 0))  # type: ignore[attr-defined]
    check_room(tmp_path, 10**21)  # a file system that does not tell


ORDER = (
    "weights.safetensors",
    "computed.safetensors",
    "model.onnx",
    "rows.safetensors",
    "enter.onnx",
    "step.onnx",
    "leave.onnx",
    "loops.onnx",
    "model.pt2",
    "golden.safetensors",
    "reports/parity.json",
    "reports/parity.html",
    "reports/index.html",
    "card.md",
)


def too_small_for(name: str, bundle: Path) -> int:
    """The size of a disk on which this file of a bundle is the first that does not fit, in bytes."""
    sizes = [-(-(bundle / each).stat().st_size // 4096) * 4096 for each in ORDER]
    index = ORDER.index(name)
    return sum(sizes[:index]) + sizes[index] // 2


@pytest.mark.slow
def test_exports_onto_small_disks(tmp_path: Path, bundles: Bundles) -> None:
    checkpoint, whole = GOLDEN / "training_checkpoint" / "step_0000010.pt", bundles["training_checkpoint"]
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode != 0:
        pytest.skip("this system makes no new namespaces")
    assert {*ORDER, "manifest.json"} == {path.relative_to(whole).as_posix() for path in whole.rglob("*.*")}
    expected = {
        "weights.safetensors": "load the checkpoint",  # refused before the work
        "step.onnx": "lower to ONNX",
        "model.pt2": "package",
        "golden.safetensors": "write the report",
        "reports/parity.html": "write the report",
    }
    sizes = [str(too_small_for(name, whole)) for name in expected]
    script = [sys.executable, Path(__file__).with_name("full_disks.py"), tmp_path, checkpoint, *sizes]
    run = subprocess.run(["unshare", "-Urm", *script], capture_output=True, text=True)
    lines = run.stdout.splitlines()
    assert len(lines) == len(sizes), run.stderr
    for stage, line in zip(expected.values(), lines, strict=True):
        where, code, text, left = line.split(" | ")
        assert where.startswith(stage) and (code, left) == ("3", "[]"), line
        assert text.endswith("; no bundle was written"), line
    assert re.search(r"takes at least 0\.6 MB, and the disk has 0\.3 MB left", lines[0])
    assert all("there is no space left on the disk" in line for line in lines[1:])
