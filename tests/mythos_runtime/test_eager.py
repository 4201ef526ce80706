"""The eager backend runs the captured program of a bundle."""

from __future__ import annotations

import numpy as np
from golden_bundles import GOLDEN, Bundles
from safetensors.numpy import load_file

from mythos_runtime import load


def test_the_captured_program_gives_the_golden_answers(bundles: Bundles) -> None:
    io = load_file(GOLDEN / "training_checkpoint" / "io.safetensors")
    out = load(bundles["training_checkpoint"], backend="eager").forward(io["input_ids"].astype(np.int64))
    assert np.abs(out.logits - io["logits"]).max() <= 2e-5 * np.abs(io["logits"]).max()
    assert np.array_equal(out.depth, io["halting_depth"])
