"""kill -9 at any moment leaves the old or the new bundle under the name, and the next export cleans up."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from golden_bundles import GOLDEN, Bundles

from mythos_export.destination import staged
from mythos_export.errors import PackageError
from mythos_runtime import BundleError, read_manifest
from mythos_runtime.staging import State, stages_of, state_of

HERE = Path(__file__).parent


@pytest.mark.parametrize("system", ["exchange", "renames"])
@pytest.mark.parametrize("first", ["old", "nothing"])
def test_a_kill_before_every_step(tmp_path: Path, first: str, system: str) -> None:
    command = [sys.executable, HERE / "every_kill.py", tmp_path / "x", first, system]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["wrong"] == []
    assert found["seen"] == sorted(("new", first)) and found["kills"] > 15


@pytest.mark.slow
def test_thirty_kills_at_random_moments(tmp_path: Path, bundles: Bundles) -> None:
    seed = int(os.environ.get("MYTHOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
    command = [sys.executable, HERE / "random_kills.py", tmp_path / "x", bundles["gqa_prefill"], str(seed), "30"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["wrong"] == [], f"MYTHOS_SEED={seed}"
    assert {"old", "nothing", "new"} >= set(found["seen"]) and sum(found["seen"].values()) == 30
    assert found["hosts"] == ({"here": 16, "another": 14} if found["namespaces"] else {"here": 30})


def is_alive(stage: Path) -> bool:
    with state_of(stage) as state:
        return state is State.ALIVE


@pytest.mark.slow
@pytest.mark.parametrize("container", [[], ["unshare", "-Urpf", "--kill-child", "--mount-proc"]])
@pytest.mark.parametrize(("awaited", "first"), [("weights.safetensors", "nothing"), ("golden.safetensors", "old")])
def test_real_exports_killed(tmp_path: Path, bundles: Bundles, container: list[str], awaited: str, first: str) -> None:
    """As a user's, in this PID namespace and in another; where the first file comes, and before the verification."""
    if container and subprocess.run([*container, "true"], capture_output=True).returncode != 0:
        pytest.skip("this system makes no new namespaces")
    place = tmp_path / "bundle"
    if first == "old":
        shutil.copytree(bundles["training_checkpoint"], place)
    source = str(GOLDEN / "training_checkpoint" / "step_0000010.pt")
    code = "from mythos_export.cli import export_command; export_command()"
    command = [*container, sys.executable, "-c", code, source, "-o", str(place), "--force"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(f".bundle.*.partial/bundle/{awaited}")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(PackageError, match="another export is writing"), staged(place, force=True):
        pass
    process.kill()
    process.wait()
    while is_alive(stages_of(place)[0]):  # the kernel ends the rest of a namespace a moment after its first process
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if first == "old":
        assert read_manifest(place) == read_manifest(bundles["training_checkpoint"])
    else:
        with pytest.raises(BundleError, match="does not exist"):
            read_manifest(place)
    with pytest.raises(KeyboardInterrupt), staged(place, force=True):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == (["bundle"] if first == "old" else [])
