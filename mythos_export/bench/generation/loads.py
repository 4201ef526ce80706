"""How deep the tokens of a run are: planted, or as the model itself decided, from a file of `--depth-trace`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mythos_export.errors import BenchError

EASY = 2
HARD_SHARE = 0.1


@dataclass(frozen=True)
class Load:
    """Depths of new tokens.

    Attributes:
        name: as a report says it.
        rows: int [S, n], of S sequences; a run of more sequences begins again with the first.
        shared: whether many sequences are timed with it, and not one alone.
    """

    name: str
    rows: np.ndarray
    shared: bool = True

    def depths(self, sequence: int, tokens: int) -> tuple[int, ...]:
        """Of one sequence, as many as asked for: its own, begun again where they end."""
        return tuple(np.resize(self.rows[sequence % len(self.rows)], tokens).tolist())


def planted(deepest: int) -> list[Load]:
    """Those of a model of so many loops."""
    depths = sorted({1, EASY, deepest // 2, deepest} & set(range(1, deepest + 1)))
    even = [constant(depth, depth in (EASY, deepest)) for depth in depths]
    return even if deepest <= EASY else [*even, mixed(deepest), alternating(deepest)]


def constant(depth: int, shared: bool = True) -> Load:
    """Every token as deep."""
    return Load(f"every token {depth} deep", np.array([[depth]]), shared)


def mixed(deepest: int, sequences: int = 64, tokens: int = 200) -> Load:
    """One token in ten `deepest`, the others `EASY`, at places drawn at random."""
    hard = np.random.default_rng(0).random((sequences, tokens)) < HARD_SHARE
    return Load(f"10 % of tokens {deepest} deep, the others {EASY}", np.where(hard, deepest, EASY))


def alternating(deepest: int) -> Load:
    """Easy, hard, easy, ..."""
    return Load(f"{EASY} and {deepest} deep in turns", np.array([[EASY, deepest]]), shared=False)


def recorded(path: Path, deepest: int) -> Load:
    """The depths of a run that `mythos run --depth-trace` recorded.

    Raises:
        BenchError: the file cannot be read, holds no depths, or deeper ones than this bundle's loops.
    """
    try:
        requests = json.loads(path.read_text(encoding="utf-8"))["requests"]
        rows = [[int(depth) for depth in request["depth"]] for request in requests if request["depth"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"--depth-trace {path}: expected what mythos run --depth-trace writes ({error})") from error
    return from_rows(f"recorded in {path.name}", rows, deepest)


def from_rows(name: str, rows: Sequence[Sequence[int]], deepest: int) -> Load:
    """Rows of any lengths, each begun again until all are as long as the longest."""
    if not rows:
        raise BenchError(f"{name}: there are no depths in it")
    longest = max(len(row) for row in rows)
    found = np.array([np.resize(row, longest) for row in rows])
    if found.min() < 1 or found.max() > deepest:
        raise BenchError(f"{name}: depths from {found.min()} to {found.max()}; this bundle runs 1 to {deepest} loops")
    return Load(name, found)
