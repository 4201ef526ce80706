"""Golden cases of the families: what was called, and how close an answer is to what the reference computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from mythos_model.looped import LoopedModel

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

    @property
    def initial(self) -> np.ndarray | None:
        """The state before the first loop [B, T, S], where the reference drew one."""
        return self.io.get("initial_state")

    @property
    def config(self) -> dict[str, Any]:
        """Fields that the call changes: what the reference is told at every call, a bundle has in its defaults."""
        call = self.call
        named = {
            "exit_at_step": "early_exit_step",
            "exit_threshold": "early_exit_threshold",
            "init_scale": "init_scale",
        }
        return {ours: call[theirs] for theirs, ours in named.items() if theirs in call}

    @property
    def exit_rule(self) -> str | None:
        return "weighted" if self.call.get("use_weighted_exit") else None

    @property
    def loops(self) -> int | None:
        """Loops that the call asked for; None: as the configuration says."""
        found = self.call.get("total_ut_steps", self.call.get("num_steps"))
        return None if found is None else int(found)

    def alone(self) -> Iterator[GoldenCase]:
        """The case as it is, or, where every sequence has a depth of its own, each sequence by itself."""
        if "depth" not in self.io:
            yield self
            return
        for row, depth in enumerate(self.io["depth"].tolist()):
            io = {name: value[row : row + 1] for name, value in self.io.items()}
            yield replace(self, call={**self.call, "num_steps": depth}, io=io)

    def check(self, forward: Callable[[int, int], tuple[np.ndarray, np.ndarray]]) -> None:
        """Hold the logits and depths of every chunk, which `forward` computes, to the reference's."""
        answers = [forward(*chunk) for chunk in self.chunks]
        logits, depth = (np.concatenate(part, 1) for part in zip(*answers, strict=True))
        expected = self.io["logits"]
        assert np.abs(logits - expected).max() <= CLOSE * np.abs(expected).max()
        assert np.array_equal(logits.argmax(-1), expected.argmax(-1))
        assert np.array_equal(depth - 1, self.io["exit_step"]) if "exit_step" in self.io else len(set(depth.flat)) == 1

    def check_eager(self, model: LoopedModel) -> None:
        """Hold the eager model to the reference, through a cache where the case has one. What is not cached is NaN."""
        ids, (batch, tokens) = torch.from_numpy(self.ids), self.ids.shape
        loops = model.spec.trained_loops if self.loops is None else self.loops
        initial = None if self.initial is None else torch.from_numpy(self.initial)
        past = {name: lines.expand(*lines.shape[:-2], tokens, -1) for name, lines in _nothing(model, batch, loops)}
        past = {name: torch.full_like(lines, torch.nan).contiguous() for name, lines in past.items()}

        def forward(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            lengths = torch.full((batch,), start)
            cached = {"past": past, "past_lengths": lengths, "early_exit": False} if len(self.chunks) > 1 else {}
            state = None if initial is None else initial[:, start:stop]
            out = model(ids[:, start:stop], max_loops=loops, initial_state=state, **cached)
            for group, new in out.new.items():
                past[group][..., start:stop, :] = new
            return out.logits.numpy(), out.depth.numpy()

        self.check(forward)


def _nothing(model: LoopedModel, batch: int, loops: int) -> Iterator[tuple[str, torch.Tensor]]:
    for name, lines in model.empty_past(batch, loops).items():
        yield name, lines.new_zeros(*lines.shape[:-2], 1, lines.shape[-1])
