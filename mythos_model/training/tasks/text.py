"""`text`: a language model over bytes, small enough to train in minutes and good enough to write words."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mythos_model.families.openmythos import MythosConfig, MythosModel
from mythos_model.training.halting import halting_loss, settled_distribution
from mythos_model.training.initial import calm_start
from mythos_model.training.tasks import corpus
from mythos_model.training.tasks.task import Metrics
from mythos_model.training.unroll import halt, lens, read_out, unroll

FOLDER = Path("build/corpus")
LOOPS = (3, 4, 5, 6)  # drawn per step
SETTLED = 0.1  # total variation distance that a halted position may still be from its last loop


class Text:
    """The recipe of the shipped model `text`."""

    name = "text"
    config = MythosConfig(
        vocab_size=256,
        dim=128,
        n_heads=4,
        n_kv_heads=2,
        max_seq_len=256,
        max_loop_iters=6,
        prelude_layers=1,
        coda_layers=1,
        attn_type="gqa",
        n_experts=8,
        n_shared_experts=1,
        n_experts_per_tok=2,
        expert_dim=96,
        act_threshold=0.99,
        rope_theta=10000.0,
        lora_rank=4,
        max_output_tokens=256,
    )
    steps, warmup = 1600, 100
    betas, weight_decay = (0.9, 0.95), 0.1

    def __init__(
        self,
        batch: int = 6,
        window: int = 192,
        ponder: float = 0.002,
        checked: int = 64,
        texts: tuple[bytes, bytes] | None = None,
    ) -> None:
        """`batch` windows of `window` bytes a step; `ponder` weighs the ponder cost; `checked` windows are held out for
        the evaluation; `texts` to train on and to hold out, instead of the corpus."""
        self.batch, self.window, self.ponder, self.checked = batch, window, ponder, checked
        self._texts = texts

    def prepare(self) -> None:
        if self._texts is None:
            self._texts = corpus.read(corpus.fetch(FOLDER))
        self.trained, self.held_out = (torch.frombuffer(bytearray(text), dtype=torch.uint8) for text in self._texts)

    def parameters(self) -> dict[str, Any]:
        """The texts by their hash: another version of the package is another run."""
        assert self._texts is not None
        hashes = [hashlib.sha256(text).hexdigest() for text in self._texts]
        names = ("batch", "window", "ponder", "checked")
        return {**{name: getattr(self, name) for name in names}, "texts": hashes}

    def initialise(self, model: MythosModel, seed: int) -> None:
        calm_start(model, seed, halt_bias=-1.0)

    def learning_rate(self) -> float:
        return 2e-3

    def loss(self, model: MythosModel, random: np.random.Generator) -> tuple[Tensor, Tensor, Metrics]:
        starts = random.integers(0, len(self.trained) - self.window, self.batch)
        windows = torch.stack([self.trained[start : start + self.window + 1] for start in starts]).long()
        ids, target = windows[:, :-1], windows[:, 1:]
        run = unroll(model, ids, int(random.choice(LOOPS)))
        ended = halt(run.halt_logits, self.config.act_threshold)

        last = random.random() < 0.25  # keeps states of any depth fit for the coda
        out = run.states[-1] if last else (ended.weights.unsqueeze(-1) * run.states).sum(0)
        logits = read_out(model, out, run.past)
        final = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        guesses = lens(model, run.states)  # [N, B, T, V]
        later = (torch.arange(len(guesses)) + 1.0) / sum(range(1, len(guesses) + 1))  # early loops need not know yet
        per_loop = F.cross_entropy(guesses.movedim(-1, 1), target.expand(len(guesses), -1, -1), reduction="none")
        every = (later * per_loop.mean((1, 2))).sum()
        calm = settled_distribution(guesses.detach(), SETTLED)
        stop = halting_loss(run.halt_logits[:-1], calm[:-1])
        loss = final + 0.3 * every + 0.2 * stop + self.ponder * ended.ponder.mean()
        metrics = {
            "bits per byte": float(final.detach()) / math.log(2),
            "lens loss": float(every.detach()),
            "halting loss": float(stop.detach()),
            "depth": float(ended.depth.float().mean()),
            "loops": float(len(guesses)),
        }
        return loss, run.load, metrics

    def windows(self) -> Tensor:
        """Held-out windows, evenly spread: int64 [checked, window + 1]."""
        starts = torch.linspace(0, len(self.held_out) - self.window - 1, self.checked).long()
        return torch.stack([self.held_out[start : start + self.window + 1] for start in starts]).long()

    @torch.no_grad()
    def evaluate(self, model: MythosModel) -> dict[str, Any]:
        windows = self.windows()
        rows = []
        for loops in (1, 2, 3, 4, 6, 8):
            outputs = [model(part[:, :-1], max_loops=loops) for part in windows.split(16)]
            logits = torch.cat([out.logits for out in outputs])
            loss = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
            depth = torch.cat([out.depth for out in outputs]).float().mean()
            rows.append({"loops": loops, "bits_per_byte": float(loss) / math.log(2), "depth": float(depth)})
        return {"windows": len(windows), "window": self.window, "by_loops": rows}

    def held_out_inputs(self) -> dict[str, Tensor]:
        return {"input_ids": self.windows().int()}

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to remember."""
