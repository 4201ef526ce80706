"""Greedy generation through a cache: the first token at which a stage leaves the float64 model's text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mythos_export.verify.tolerances import Tolerances
from mythos_runtime.config import RuntimeConfig
from mythos_runtime.ports import numpy_dtype

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


def true_text(call: Call, prompt: list[int], config: RuntimeConfig) -> Text:
    """The continuation by `call`, which runs the float64 model."""
    tokens, margins = _greedy(call, prompt, config)
    return Text(tuple(prompt), tokens, margins)


def generate(call: Call, text: Text, config: RuntimeConfig, tolerances: Tolerances) -> Generated:
    """A stage's continuation of the same prompt, held to the true one."""
    tokens, _ = _greedy(call, list(text.prompt), config, len(text.tokens))
    for index, (found, true) in enumerate(zip(tokens, text.tokens, strict=True)):
        if found != true:
            # Both logits may be off by the tolerance, in opposite directions; and what a decision turned stays in the
            # cache.
            near = text.margins[index] < 2 * tolerances.of("logits", 0) or any(text.ties[: index + 1])
            return Generated(tokens, index + 1, near)
    return Generated(tokens, None)


def calls(text: Text, config: RuntimeConfig) -> list[dict[str, np.ndarray]]:
    """Inputs with the shapes of the calls that generation makes: the prompt, and one token after it."""
    prompt = list(text.prompt)
    cache = _cache(len(prompt) + len(text.tokens), config)
    return [_inputs(prompt, 0, cache, config), _inputs(prompt[:1], len(prompt), cache, config)]


def _cache(capacity: int, config: RuntimeConfig) -> tuple[np.ndarray, np.ndarray]:
    shape = (1, capacity, config.cache_width)
    dtype = numpy_dtype(config.cache_dtype)
    return np.zeros((config.layers, *shape), dtype), np.zeros((config.max_loop_iters, *shape), dtype)


def _inputs(
    new: list[int], held: int, cache: tuple[np.ndarray, np.ndarray], config: RuntimeConfig
) -> dict[str, np.ndarray]:
    return {
        "input_ids": np.array([new], np.int64),
        "positions": np.arange(held, held + len(new), dtype=np.int64)[None],
        "past_lengths": np.array([held], np.int64),
        "max_loops": np.array(config.max_loop_iters, np.int64),
        "halt_threshold": np.array(config.act_threshold, np.float32),
        "early_exit": np.array(False),
        "past_layers": cache[0],
        "past_loop": cache[1],
    }


def _greedy(
    call: Call, prompt: list[int], config: RuntimeConfig, count: int = TOKENS
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    cache = _cache(len(prompt) + count, config)
    new, held = list(prompt), 0
    tokens: list[int] = []
    margins: list[float] = []
    for _ in range(count):
        outputs = call(_inputs(new, held, cache, config))
        for buffer, name in zip(cache, ("new_layers", "new_loop"), strict=True):
            buffer[:, :, held : held + len(new)] = outputs[name]
        held += len(new)
        logits = np.asarray(outputs["logits"][0, -1], np.float64)
        second, best = np.sort(logits)[-2:]
        margins.append(float((best - second) / (np.abs(logits).max() or 1.0)))
        new = [int(logits.argmax())]
        tokens += new
    return tuple(tokens), tuple(margins)
