"""Kernels and C++ runtime for 64-bit ARM, under qemu: their own tests, and a bundle's tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from golden_bundles import Bundles

from mythos_runtime import load

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "aarch64"


@pytest.fixture(scope="module")
def built() -> None:
    script = subprocess.run([sys.executable, ROOT / "cmake" / "build_aarch64.py"], capture_output=True, text=True)
    if script.returncode == 3:
        pytest.skip(script.stderr.strip())
    assert script.returncode == 0, script.stdout + script.stderr


@pytest.mark.slow
@pytest.mark.parametrize("instructions", ["neon", "generic"])
@pytest.mark.parametrize("name", ["mla_prefill", "gqa_decode, int4"])
def test_the_tokens_of_this_machine(built: None, bundles: Bundles, name: str, instructions: str) -> None:
    expected = load(bundles[name], op_library=None).generate_all([[1, 2, 3]], max_new_tokens=8).tokens[0]
    variables = ["-E", f"MYTHOS_OPS_ISA={instructions}", "-E", f"MYTHOS_OP_LIBRARY={BUILD}/kernels/libmythos_ops.so"]
    emulator = ["qemu-aarch64", "-L", BUILD / "sysroot", *variables]
    program = [BUILD / "native" / "mythos_run", bundles[name], "--ids", "1,2,3", "--max-new-tokens", "8", "--json"]
    asked = subprocess.run([*emulator, *program, "--temperature", "0"], capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    document = json.loads(asked.stdout.splitlines()[-1])
    assert (document["tokens"], document["operators"]) == (expected, "native")
