"""kill -9 at any moment leaves the old or the new bundle under the name, and the next export cleans up."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from golden_bundles import GOLDEN, Bundles

from mythos_runtime import BundleError, read_manifest

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


@pytest.mark.slow
@pytest.mark.parametrize("container", [[], ["unshare", "-Urpf", "--kill-child", "--mount-proc"]])
def test_real_exports_killed(tmp_path: Path, bundles: Bundles, container: list[str]) -> None:
    """As a user's, in this PID namespace and in another; at the first file, while it verifies, and never."""
    if container and subprocess.run([*container, "true"], capture_output=True).returncode != 0:
        pytest.skip("this system makes no new namespaces")
    place = tmp_path / "bundle"
    source = str(GOLDEN / "training_checkpoint" / "step_0000010.pt")
    code = "from mythos_export.cli import export_command; export_command()"
    command = [*container, sys.executable, "-c", code, source, "-o", str(place), "--force"]
    created = None
    for awaited in ("weights.safetensors", None, "golden.safetensors"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while awaited is not None and not list(tmp_path.glob(f".bundle.*.partial/bundle/{awaited}")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        if awaited is not None:
            process.send_signal(signal.SIGKILL)
        assert process.wait() == (0 if awaited is None else -signal.SIGKILL)
        if awaited is None:
            created = read_manifest(place).created
            assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
        elif created is None:
            with pytest.raises(BundleError, match="does not exist"):
                read_manifest(place)
        else:
            assert read_manifest(place).created == created
