"""The inputs that an export is held to, and what the eager model answers to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mythos_export.capture import INPUT_NAMES, OUTPUT_NAMES
from mythos_model import MythosConfig, MythosModel
from mythos_model.loop import Carry, Details

# How near a decision may be to its boundary before the precision may turn it either way. A turned decision is a
# different function from there on, so such positions, and those that attend to them, are counted and left out.
NEAR_TIE = {"fp32": 1e-5, "fp16": 4e-3, "bf16": 3e-2}


@dataclass(frozen=True)
class Case:
    """One call of the graph and the eager model's answer.

    Attributes:
        name: for people.
        inputs: by port name, as torch tensors.
        outputs: of the eager model at the export's precision, by port name.
        clean: bool [B, T], positions that are real and that no near tie can reach.
        exact_error: relative error of those outputs against the float64 model, on clean positions.
    """

    name: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    clean: Tensor
    exact_error: float


@dataclass
class Margins:
    """Smallest distance of any decision from its boundary, per position; filled by observing the loop."""

    threshold: float
    chosen: int
    smallest: Tensor | None = None
    halted: Tensor | None = field(default=None)

    def __call__(self, carry: Carry, details: Details) -> None:
        halting = (carry.cumulative - self.threshold).abs()
        ranked = details.routing.selection.sort(-1, descending=True).values
        routing = torch.full_like(halting, torch.inf)
        if ranked.shape[-1] > self.chosen:
            routing = ranked[..., self.chosen - 1] - ranked[..., self.chosen]
        running = torch.ones_like(carry.halted) if self.halted is None else ~self.halted
        # A halted position still runs, and later positions attend to it; only its own halting is settled.
        now = torch.minimum(torch.where(running, halting, torch.inf), routing)
        self.smallest = now if self.smallest is None else torch.minimum(self.smallest, now)
        self.halted = carry.halted


def make_cases(model: MythosModel, precision: str, seed: int = 0) -> list[Case]:
    """Random cases over the ways a graph is used: scoring, thresholds, depths, then prefill and decode with a cache."""
    exact = MythosModel.from_state(model.config, model.reference_state(), torch.float64)
    cases = [_answer(name, inputs, model, exact, precision) for name, inputs in _scoring(model, seed)]
    return cases + list(_decoding(model, exact, precision, seed))


def _scoring(model: MythosModel, seed: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    config = model.config
    trained, usual = config.max_loop_iters, config.act_threshold
    many = min(9, config.max_seq_len)
    for name, batch, tokens, loops, threshold in (
        ("one token", 1, 1, trained, usual),
        ("batch 3, many tokens", 3, many, trained, usual),
        ("no loops", 1, many, 0, usual),
        ("one loop", 3, many, 1, usual),
        ("beyond the trained depth", 1, many, trained + 3, usual),
        ("halting early", 3, many, trained, 0.05),
        ("halting late", 1, many, trained + 2, 0.9999),
        ("never halting", 3, 1, trained, 1e9),
    ):
        seed += 1
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, config.vocab_size, (batch, tokens), generator=generator)
        past = dict(zip(("past_layers", "past_loop"), model.empty_past(batch, loops), strict=True))
        positions = torch.arange(tokens).expand(batch, tokens).clone()
        yield name, _inputs(ids, positions, torch.zeros(batch, dtype=torch.int64), loops, threshold, True) | past


def _decoding(model: MythosModel, exact: MythosModel, precision: str, seed: int) -> Iterator[Case]:
    """Two rows of different length: a padded prefill, a chunk with a past, and one token, under both cache policies."""
    config = model.config
    if config.max_seq_len < 8:
        return
    generator = torch.Generator().manual_seed(seed + 100)
    N, layers, C, capacity = config.max_loop_iters, len(model.prelude) + len(model.coda), config.cache_dim, 12
    for early_exit, policy in ((False, "full"), (True, "last")):
        make = model.embed.weight.new_zeros
        past_layers, past_loop = make(layers, 2, capacity, C), make(N, 2, capacity, C)
        lengths = torch.zeros(2, dtype=torch.int64)
        for step, counts in (("prefill", (4, 2)), ("chunk", (2, 3)), ("token", (1, 1))):
            tokens = max(counts)
            ids = torch.randint(0, config.vocab_size, (2, tokens), generator=generator)
            slot = torch.arange(tokens).expand(2, tokens)
            positions = torch.where(slot < torch.tensor(counts).unsqueeze(1), slot + lengths.unsqueeze(1), -1)
            inputs = _inputs(ids, positions, lengths.clone(), N, config.act_threshold, early_exit)
            inputs |= {"past_layers": past_layers.clone(), "past_loop": past_loop.clone()}
            case = _answer(f"{step}, cache policy {policy}", inputs, model, exact, precision)
            yield case
            for row, count in enumerate(counts):
                at = int(lengths[row])
                for buffer, name in ((past_layers, "new_layers"), (past_loop, "new_loop")):
                    buffer[:, row, at : at + count] = case.outputs[name][:, row, :count]
                lengths[row] += count


def _inputs(
    ids: Tensor, positions: Tensor, lengths: Tensor, loops: int, threshold: float, early_exit: bool
) -> dict[str, Tensor]:
    values: tuple[Any, ...] = (
        ids,
        positions,
        lengths,
        torch.tensor(loops),
        torch.tensor(threshold, dtype=torch.float32),
        torch.tensor(early_exit),
    )
    return dict(zip(INPUT_NAMES, values, strict=False))


def _answer(name: str, inputs: dict[str, Tensor], model: MythosModel, exact: MythosModel, precision: str) -> Case:
    config: MythosConfig = model.config
    margins = Margins(float(inputs["halt_threshold"]), config.n_experts_per_tok)
    wide = {
        key: value.double() if key.startswith("past_l") and value.is_floating_point() else value
        for key, value in inputs.items()
    }
    truth = exact(**wide, observe=margins)
    outputs = dict(zip(OUTPUT_NAMES, model(**inputs), strict=True))
    real = inputs["positions"] >= 0
    clean = real
    if margins.smallest is not None:
        near = (margins.smallest < NEAR_TIE[precision]) & real
        clean = real & (near.int().cumsum(1) == 0)  # causal: whoever comes later may have attended to it
    error = relative_error(outputs["logits"].numpy(), truth.logits.numpy(), clean.numpy())
    return Case(name, inputs, outputs, clean, error)


def relative_error(found: np.ndarray, expected: np.ndarray, clean: np.ndarray) -> float:
    """Largest difference on clean positions [B, T], over the largest expected value; found, expected [..., B, T, W]."""
    if not clean.any() or not expected.size:
        return 0.0
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))[..., clean, :]
    scale = np.abs(expected.astype(np.float64))[..., clean, :].max()
    worst = difference.max()
    return float(worst / scale) if scale > 0 else float(worst)
