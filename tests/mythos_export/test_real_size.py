"""A model of a gigabyte goes through the command; how much memory that takes is bounded."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from math import prod
from pathlib import Path

import pytest
import torch

from mythos_model import MythosConfig
from mythos_model.families.openmythos.names import reference_shapes
from mythos_runtime import read_manifest
from mythos_runtime.manifest import TWIN_VERIFIED

CONFIG = MythosConfig(
    vocab_size=8192,
    dim=1024,
    n_heads=8,
    max_seq_len=512,
    max_loop_iters=4,
    prelude_layers=1,
    coda_layers=1,
    kv_lora_rank=128,
    q_lora_rank=256,
    qk_rope_head_dim=32,
    qk_nope_head_dim=64,
    v_head_dim=64,
    n_experts=48,
    n_experts_per_tok=2,
    n_shared_experts=1,
    expert_dim=1664,
)
BASE = 900e6  # what the command takes of any model: torch, ONNX Runtime, the graphs


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Random weights, written one tensor at a time."""
    shapes, generator = reference_shapes(CONFIG), torch.Generator().manual_seed(0)
    header, end = {}, 0
    for name in sorted(shapes):
        start, end = end, end + 4 * prod(shapes[name])
        header[name] = {"dtype": "F32", "shape": shapes[name], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(shapes):
            tensor = torch.randn(shapes[name], generator=generator) * shapes[name][-1] ** -0.5
            file.write(tensor.numpy().data)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    assert end > 1e9
    return tmp_path


def memory_of(process: int) -> dict[str, int]:
    """Bytes that a process holds, of its own (RssAnon) and of mapped files (RssFile), which the system takes back where
    memory is short; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        lines = []
    pairs = (line.split()[:2] for line in lines if line.startswith("Rss"))
    return {"RssAnon": 0, "RssFile": 0} | {name.rstrip(":"): int(kilobytes) * 1024 for name, kilobytes in pairs}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "most"),
    [("fp32", 0.5), ("int4", 0.5)],
)
def test_the_memory_of_a_gigabyte_is_bounded(precision: str, most: float, checkpoint: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    code = "from mythos_export.cli import export_command; export_command()"
    command = [
        sys.executable,
        "-c",
        code,
        str(checkpoint),
        "-o",
        str(bundle),
        "--precision",
        precision,
        "--verify",
        "twin",
    ]
    with subprocess.Popen(command) as child:
        own = files = 0
        while child.poll() is None:
            now = memory_of(child.pid)
            own, files = max(own, now["RssAnon"]), max(files, now["RssFile"])
            time.sleep(0.02)
    assert child.returncode == 0
    weights = 4 * CONFIG.parameter_count()
    assert own < BASE + most * weights, f"{own / 1e9:.2f} GB of its own, {files / 1e9:.2f} GB of files"
    manifest = read_manifest(bundle)
    assert manifest.targets[0].state == TWIN_VERIFIED
    stored = manifest.files["weights.safetensors"].bytes
    assert sum(entry.bytes for entry in manifest.files.values()) <= 1.05 * stored
