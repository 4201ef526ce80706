"""Greedy generation through a cache: the first token at which a stage leaves the float64 model's text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mythos_export.verify.past import Past
from mythos_export.verify.tolerances import Tolerances
from mythos_runtime.spec import LoopSpec

TOKENS = 8
Call = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Text:
    """A prompt and the float64 model's greedy continuation.

    `margins` are the best logit's lead over the second, relative to the largest logit; `ties` tell of each call whether
    one of its decisions (experts, halting) is nearer to a tie than the export's precision can tell.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    margins: tuple[float, ...]
    ties: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Generated:
    """What a stage wrote. `differs_at` counts from 1; `near_tie`: float64 itself hardly decided, there or before."""

    tokens: tuple[int, ...]
    differs_at: int | None
    near_tie: bool = False

    @property
    def wrong(self) -> bool:
        return self.differs_at is not None and not self.near_tie

    def to_json(self) -> dict[str, Any]:
        return {"tokens": list(self.tokens), "first_difference": self.differs_at, "near_tie": self.near_tie}


def true_text(call: Call, prompt: list[int], spec: LoopSpec) -> Text:
    """The continuation by `call`, which runs the float64 model."""
    tokens, margins = _greedy(call, prompt, spec)
    return Text(tuple(prompt), tokens, margins)


def generate(call: Call, text: Text, spec: LoopSpec, tolerances: Tolerances) -> Generated:
    """A stage's continuation of the same prompt, held to the true one."""
    tokens, _ = _greedy(call, list(text.prompt), spec, len(text.tokens))
    allowed = tolerances.of(spec.ports.of("logits").name, 0)
    for index, (found, true) in enumerate(zip(tokens, text.tokens, strict=True)):
        if found != true:
            # Both logits may be off by the tolerance, in opposite directions; and what a decision turned stays in the
            # cache.
            near = text.margins[index] < 2 * allowed or any(text.ties[: index + 1])
            return Generated(tokens, index + 1, near)
    return Generated(tokens, None)


def calls(text: Text, spec: LoopSpec) -> list[dict[str, np.ndarray]]:
    """Inputs with the shapes of the calls that generation makes: the prompt, and one token after it."""
    past = Past.empty(spec, 1, len(text.prompt) + len(text.tokens), spec.trained_loops)
    return [past.inputs(np.zeros((1, count), np.int64), [count]) for count in (len(text.prompt), 1)]


def _greedy(
    call: Call, prompt: list[int], spec: LoopSpec, count: int = TOKENS
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    past, new = Past.empty(spec, 1, len(prompt) + count, spec.trained_loops), list(prompt)
    tokens: list[int] = []
    margins: list[float] = []
    for _ in range(count):
        outputs = call(past.inputs(np.array([new], np.int64), [len(new)], early_exit=False))
        past.append(outputs, [len(new)])
        logits = np.asarray(outputs[spec.ports.of("logits").name][0, -1], np.float64)
        second, best = np.sort(logits)[-2:]
        margins.append(float((best - second) / (np.abs(logits).max() or 1.0)))
        new = [int(logits.argmax())]
        tokens += new
    return tuple(tokens), tuple(margins)
