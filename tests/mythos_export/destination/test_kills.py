"""kill -9 at any moment leaves the old or the new bundle under the name, and the next export cleans up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("system", ["exchange", "renames"])
@pytest.mark.parametrize("first", ["old", "nothing"])
def test_a_kill_before_every_step(tmp_path: Path, first: str, system: str) -> None:
    script = Path(__file__).with_name("every_kill.py")
    run = subprocess.run([sys.executable, script, tmp_path / "x", first, system], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["wrong"] == []
    assert found["seen"] == sorted(("new", first)) and found["kills"] > 15
