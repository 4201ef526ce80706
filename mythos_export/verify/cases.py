"""The inputs that an export is held to: fixed ones over the ways a graph is used, given ones, and random ones.

A question is what a stage is given. Its answer by the float64 model (`truth.py`) makes it a case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from mythos_export.capture import INPUT_NAMES
from mythos_export.errors import CasesError
from mythos_export.verify.trace import Trace
from mythos_model import MythosModel

# Of an input file: every stage runs its rows, and the answers travel in the bundle, the state of every iteration too.
GIVEN_ROWS = 12
GIVEN_VALUES = 1 << 24


@dataclass(frozen=True)
class Question:
    """One call of the graph: a name for people, and the inputs by port as torch tensors."""

    name: str
    inputs: dict[str, Tensor]


Ask = Callable[[Question], dict[str, Tensor]]
"""Puts a question to the models and returns the outputs of eager PyTorch at the export's precision."""


@dataclass(frozen=True)
class Case:
    """A question and its true answer, that of the float64 model with the export's weights.

    Attributes:
        name: for people.
        inputs: by port name.
        outputs: of the float64 model by port name; floats are kept as float32.
        trace: the same, inside the loop.
        routing_margin: float32 [n, B, T], how much the last chosen expert's logit is above the first unchosen one's.
        halting_margin: float32 [n, B, T], distance of the cumulative probability from the threshold; inf once halted.
    """

    name: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    trace: Trace
    routing_margin: np.ndarray
    halting_margin: np.ndarray

    @property
    def real(self) -> np.ndarray:
        """bool [B, T]: positions that are not padding."""
        return self.inputs["positions"] >= 0


def golden_questions(model: MythosModel, ask: Ask, seed: int = 0) -> None:
    """Ask the fixed questions: scoring at thresholds and depths, then prefill and decode with a cache."""
    for question in _scoring(model, seed):
        ask(question)
    if model.config.max_seq_len >= 8:
        _decoding(model, ask, seed)


def _scoring(model: MythosModel, seed: int) -> Iterator[Question]:
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
        ids = torch.randint(0, config.vocab_size, (batch, tokens), generator=torch.Generator().manual_seed(seed))
        yield Question(name, without_cache(model, ids, loops, threshold))


def _decoding(model: MythosModel, ask: Ask, seed: int) -> None:
    """Two rows of different length: a padded prefill, a chunk with a past, and one token, under both cache policies."""
    config = model.config
    generator = torch.Generator().manual_seed(seed + 100)
    for early_exit, policy in ((False, "full"), (True, "last")):
        cache = Cache.empty(model, batch=2, loops=config.max_loop_iters, capacity=12)
        for step, counts in (("prefill", (4, 2)), ("chunk", (2, 3)), ("token", (1, 1))):
            ids = torch.randint(0, config.vocab_size, (2, max(counts)), generator=generator)
            inputs = cache.inputs(ids, counts, config.max_loop_iters, config.act_threshold, early_exit)
            cache.append(ask(Question(f"{step}, cache policy {policy}", inputs)), counts)


def given_questions(model: MythosModel, path: Path) -> Iterator[Question]:
    """Questions from a file's `input_ids` int64 [n, T]: at most GIVEN_ROWS rows, evenly spread, with loops to spare.

    Raises:
        CasesError: the file cannot be read or its ids do not fit the model.
    """
    try:
        ids = load_file(path)["input_ids"].long()
    except (OSError, safetensors.SafetensorError, KeyError) as error:
        raise CasesError(f"{path} gives no cases ({error}); it should be a safetensors file with input_ids") from error
    config = model.config
    if ids.ndim != 2 or not ids.numel() or ids.shape[1] > config.max_seq_len:
        raise CasesError(
            f"{path}: input_ids has shape {list(ids.shape)}, expected [n, T] with T from 1 to {config.max_seq_len}"
        )
    if ids.min() < 0 or ids.max() >= config.vocab_size:
        raise CasesError(f"{path}: ids are {ids.min()} to {ids.max()}, the model knows 0 to {config.vocab_size - 1}")
    loops = 2 * config.max_loop_iters
    fit = GIVEN_VALUES // (loops * config.dim)
    if ids.shape[1] > fit:
        raise CasesError(f"{path}: rows of {ids.shape[1]} tokens are too long to keep their answers; cut them to {fit}")
    count = min(len(ids), GIVEN_ROWS, fit // ids.shape[1])
    rows = torch.linspace(0, len(ids) - 1, count).round().long()
    inputs = without_cache(model, ids[rows], loops, config.act_threshold)
    yield Question(f"given inputs, {count} rows", inputs)


def random_questions(
    model: MythosModel, count: int, seed: int, cumulative: Callable[[Question], Tensor]
) -> Iterator[Question]:
    """`count` drawn questions: batch, tokens, past, padding, threshold, loops and policy; every sixth is a near tie.

    `cumulative` runs a question and returns the summed halting probabilities [n, B, T]; a near tie's threshold is one
    of them, so that the position halts by less than the precision can tell.
    """
    config = model.config
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    for index in range(count):
        batch, tokens = int(rng.integers(1, 5)), int(rng.integers(1, min(12, config.max_seq_len) + 1))
        past = int(rng.integers(0, min(16, config.max_seq_len - tokens) + 1)) if rng.random() < 0.5 else 0
        loops = int(rng.integers(0, config.max_loop_iters + 5))
        usual = config.act_threshold
        threshold = float(rng.choice([usual, usual, 0.05, 0.3, 0.6, 0.9999, 1e9]))
        early_exit = bool(rng.random() < 0.6)
        counts = [int(rng.integers(1, tokens + 1)) for _ in range(batch)]
        counts[int(rng.integers(batch))] = tokens  # no column of padding only
        cache = Cache.empty(model, batch, max(loops, 1), past)
        if past:
            lengths = [int(rng.integers(0, past + 1)) for _ in range(batch)]
            ids = torch.randint(0, config.vocab_size, (batch, past), generator=generator)
            before = cache.inputs(ids, lengths, max(loops, 1), usual, False)
            cache.append(dict(zip(("new_layers", "new_loop"), model(**before)[3:], strict=True)), lengths)
        ids = torch.randint(0, config.vocab_size, (batch, tokens), generator=generator)
        question = Question(
            f"random {index + 1}: batch {batch}, {tokens} tokens, past {past}, {loops} loops, threshold {threshold:g}",
            cache.inputs(ids, counts, loops, threshold, early_exit),
        )
        if index % 6 == 5 and loops:
            sums = cumulative(question)
            reached = sums[int(rng.integers(len(sums)))][question.inputs["positions"] >= 0]
            tie = reached[int(rng.integers(len(reached)))].float()
            question = Question(
                f"random {index + 1}: near tie, {loops} loops", question.inputs | {"halt_threshold": tie}
            )
        yield question


def without_cache(model: MythosModel, ids: Tensor, loops: int, threshold: float) -> dict[str, Tensor]:
    """Inputs of one call on `ids` [B, T] that leaves the loop by itself and has no past."""
    cache = Cache.empty(model, len(ids), loops, 0)
    return cache.inputs(ids, [ids.shape[1]] * len(ids), loops, threshold, True)


@dataclass
class Cache:
    """Fixed buffers [L or N, B, capacity, C] and how far each row is filled; what the runtimes keep as well."""

    layers: Tensor
    loop: Tensor
    lengths: Tensor

    @classmethod
    def empty(cls, model: MythosModel, batch: int, loops: int, capacity: int) -> Cache:
        make, C = model.norm.weight.new_zeros, model.config.cache_dim
        layers = len(model.prelude) + len(model.coda)
        return cls(
            make(layers, batch, capacity, C),
            make(max(loops, 1), batch, capacity, C),
            torch.zeros(batch, dtype=torch.int64),
        )

    def inputs(
        self, ids: Tensor, counts: list[int] | tuple[int, ...], loops: int, threshold: float, early_exit: bool
    ) -> dict[str, Tensor]:
        """A call's inputs; row b brings its first counts[b] ids, the rest is padding."""
        slot = torch.arange(ids.shape[1]).expand(ids.shape)
        real = slot < torch.tensor(counts).unsqueeze(1)
        values = (
            ids.where(real, 0),
            torch.where(real, slot + self.lengths.unsqueeze(1), -1),
            self.lengths.clone(),
            torch.tensor(loops),
            torch.tensor(threshold, dtype=torch.float32),
            torch.tensor(early_exit),
            self.layers.clone(),
            self.loop.clone(),
        )
        return dict(zip(INPUT_NAMES, values, strict=True))

    def append(self, outputs: dict[str, Tensor], counts: list[int] | tuple[int, ...]) -> None:
        """Write a call's new entries behind the past."""
        for row, count in enumerate(counts):
            at = int(self.lengths[row])
            for buffer, name in ((self.layers, "new_layers"), (self.loop, "new_loop")):
                buffer[:, row, at : at + count] = outputs[name][:, row, :count]
        self.lengths = self.lengths + torch.tensor(counts)
