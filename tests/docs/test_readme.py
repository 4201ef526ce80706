"""README.md, typed: every block of it, in order, in a folder that looks like a fresh clone."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from blocks import Block, blocks, script

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Links to what a clone has, and to the environment that `make setup` made; what is made there stays there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in {*(name.partition("/")[0] for name in listed.split("\0") if name), ".venv"}:
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_it_stays_short() -> None:
    assert len(README.read_text().splitlines()) <= 130
    assert [block.language for block in blocks(README)].count("bash") >= 5


@pytest.mark.slow
def test_every_block_runs(clone: Path) -> None:
    for program in ("curl", "make", "git"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here")
    if not (ROOT / ".venv" / "bin" / "activate").exists():
        pytest.skip("there is no .venv here: make setup")
    port = str(free_port())
    typed = script([Block(block.language, block.text.replace("8000", port)) for block in blocks(README)])
    # What runs this test; and what set up the environment that runs it, whose packages are not to change meanwhile.
    assert "\nmake test\n" in typed and "\nmake demo\n" in typed
    typed = typed.replace("\nmake test\n", "\nmake --dry-run test > /dev/null\n")
    typed = typed.replace("\nmake demo\n", "\nmake --assume-old=.venv/.installed demo\n")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MAKEFLAGS")}
    ran = subprocess.run(["bash", "-c", typed], cwd=clone, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-8000:]
    assert "answers/s halting by itself" in ran.stdout  # the demo
    events = [line[6:] for line in ran.stdout.splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    depths = [depth for event in events for depth in json.loads(event)["choices"][0]["depth"]]
    assert len(depths) == 24 and min(depths) >= 1
