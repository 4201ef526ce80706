"""Huginn's adaptive generation as its reference does it, on this project's layers and exit rules: one decision for a
whole chunk, and a cache of what ran, in which a later token finds holes. The product does neither (card.md says why);
so that the rules are held to every decision of the golden cases all the same, it is done here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mythos_model.looped import LAYERS, LOOP, LoopedModel
from mythos_model.state import Call, Context, Lines
from mythos_model.taps import recording


@dataclass
class Reference:
    """One sequence.

    Attributes:
        lookup: what a position without an entry at a depth shows there: nothing ("full"), or its deepest ("latest-m4").
        around: [L, n, C], entries around the loop. looped: [K, C] by depth, of every position.
    """

    model: LoopedModel
    lookup: str
    most: int
    around: Tensor
    looped: list[list[Tensor]]

    def forward(self, ids: Tensor, initial: Tensor, threshold: float) -> tuple[list[float], Tensor]:
        """The chunk's value after each loop that ran, and the logits [V] of its last position."""
        model, n = self.model, len(self.looped)
        positions = torch.arange(n, n + ids.shape[1]).unsqueeze(0)
        past = {
            LAYERS: self.around.unsqueeze(1),
            LOOP: torch.zeros(self.most, model.slots, 1, n, model.sizes.line),
        }
        never = torch.tensor(1e9 if model.exit.rule().name == "argmax-stability" else 0.0)
        call = Call(positions, torch.tensor([n]), torch.tensor(self.most), never, torch.tensor(True), past, initial)
        context, before = model.enter(ids, call)
        (_, h, state, _, _), values, ran = model.start(context), [], []
        for depth in range(self.most):
            there = self._at(depth, context)
            lines = Lines(there.stored, torch.tensor(depth * model.slots))
            h = model.advance(h, torch.tensor(depth), lines, there)
            ran.append(torch.stack(lines.chunks)[:, 0])  # [K, T, C]
            logits = model._would_answer(state, h, context) if model.exit.reads_logits else None
            with recording() as seen:
                state, _ = model.exit.update(state, h, never, torch.tensor(False), logits)
            values.append(self._value(seen.values["change"][0][0]))
            if self._leaves(values[-1], threshold):
                break
        after = Lines(context.around, torch.tensor(model.before))
        logits = model.readout(model.finish(h, after, context.past))[0, -1]
        self.around = torch.cat([self.around, torch.stack(before.chunks + after.chunks)[:, 0]], 1)
        self.looped += [[entries[:, token] for entries in ran] for token in range(ids.shape[1])]
        return values, logits

    def _at(self, depth: int, context: Context) -> Context:
        """The context with the cache as a loop at this depth finds it."""
        shown = [
            entries[min(depth, len(entries) - 1)]
            for entries in self.looped
            if depth < len(entries) or self.lookup == "latest-m4"
        ]
        stored = torch.zeros(self.most * self.model.slots, 1, len(shown), self.model.sizes.line)
        if shown:
            stored[depth * self.model.slots : (depth + 1) * self.model.slots, 0] = torch.stack(shown, 1)
        return context._replace(stored=stored, past=context.past._replace(lengths=torch.tensor([len(shown)])))

    def _value(self, change: Tensor) -> float:
        return float(change[-1] if self.model.exit.reads_logits else change.mean())

    def _leaves(self, value: float, threshold: float) -> bool:
        return value >= threshold if self.model.exit.rule().name == "argmax-stability" else value < threshold
