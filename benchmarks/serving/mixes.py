"""What clients ask: questions of known depth, and texts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from mythos_model.pretrained import folder

HARD_SHARE = 0.1


@dataclass(frozen=True)
class Mix:
    """Requests for one of the shipped models: `asks` gives prompts (ids) without end, drawn with a seed."""

    name: str
    model: str
    max_tokens: int
    asks: Callable[[int], Iterator[list[int]]]


def _held_out(model: str) -> dict[str, Any]:
    return load_file(str(Path(folder(model)) / "held_out.safetensors"))


def _questions(easy: tuple[int, int], hard: tuple[int, int], hard_share: float) -> Callable[[int], Iterator[list[int]]]:
    """Questions of `easy` hops, from and to, and a share of `hard` ones."""

    def asks(seed: int) -> Iterator[list[int]]:
        data, draw = _held_out("hops"), random.Random(seed)
        by_hops = {
            span: data["input_ids"][(data["hops"] >= span[0]) & (data["hops"] <= span[1])].tolist()
            for span in (easy, hard)
        }
        while True:
            yield draw.choice(by_hops[hard if draw.random() < hard_share else easy])

    return asks


def _texts(seed: int) -> Iterator[list[int]]:
    """Beginnings of 24 to 64 bytes."""
    data, draw = _held_out("text")["input_ids"].tolist(), random.Random(seed)
    while True:
        yield draw.choice(data)[: draw.randrange(24, 65)]


EASY, DEEP = (1, 2), (7, 8)
MIXES = (
    Mix("text", "text", 64, _texts),
    Mix("hops, 1 or 2", "hops", 1, _questions(EASY, DEEP, 0.0)),
    Mix("hops, a tenth 7 or 8", "hops", 1, _questions(EASY, DEEP, HARD_SHARE)),
    Mix("hops, 7 or 8", "hops", 1, _questions(EASY, DEEP, 1.0)),
)
