"""Programs of tests whose CUDA driver is the stand-in: each in a process of its own, where Triton interprets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def check(program: str, *given: object, asked: tuple[str, ...]) -> None:
    """Run a program of this folder, which answers with JSON: of everything that it is asked, what is wrong with it."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(Path(__file__).with_name(program)), *map(str, given), *asked]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found) == list(asked)
    for wrong in found.values():
        assert not wrong, wrong
