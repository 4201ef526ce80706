"""Golden cases of the families: what was called, and how close an answer is to what the reference computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

GOLDEN = Path(__file__).parents[2] / "golden_families"
CLOSE = 2e-5  # of the logits' scale


def cases(family: str) -> list[str]:
    return sorted(path.parent.name for path in GOLDEN.glob(f"{family}_*/case.json"))


@dataclass(frozen=True)
class GoldenCase:
    """A case of a family.

    Attributes:
        folder: the checkpoint. call: what the reference was called with.
        io: its inputs and answers by name; chunks: [start, stop) of every forward pass, the decoded tokens one by one.
    """

    folder: Path
    call: dict[str, Any]
    io: dict[str, np.ndarray]
    chunks: list[tuple[int, int]]

    @classmethod
    def load(cls, name: str) -> GoldenCase:
        case = json.loads((GOLDEN / name / "case.json").read_text())
        io = load_file(GOLDEN / name / "io.safetensors")
        first, tokens = case["prefill"], io["input_ids"].shape[1]
        chunks = [(0, first), *((start, start + 1) for start in range(first, tokens))]
        return cls(GOLDEN / name, case["call"], io, chunks)

    @property
    def ids(self) -> np.ndarray:
        return self.io["input_ids"].astype(np.int64)

    def check(self, forward: Callable[[int, int], tuple[np.ndarray, np.ndarray]]) -> None:
        """Hold the logits and depths of every chunk, which `forward` computes, to the reference's."""
        answers = [forward(*chunk) for chunk in self.chunks]
        logits, depth = (np.concatenate(part, 1) for part in zip(*answers, strict=True))
        expected = self.io["logits"]
        assert np.abs(logits - expected).max() <= CLOSE * np.abs(expected).max()
        assert np.array_equal(logits.argmax(-1), expected.argmax(-1))
        assert np.array_equal(depth - 1, self.io["exit_step"]) if "exit_step" in self.io else len(set(depth.flat)) == 1
