"""Which experts of which rows go to which shard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Share:
    """What one shard computes of a call.

    Attributes:
        pairs: int64 [m], where among the call's [R, K] choices, flat and ascending, its own stand.
        rows: int64 [u], the rows that it needs, ascending, each once.
        row: int64 [m], which of these is a pair's; expert: int64 [m], a pair's, counted from the shard's first.
    """

    pairs: np.ndarray
    rows: np.ndarray
    row: np.ndarray
    expert: np.ndarray


def shares(choices: np.ndarray, owners: np.ndarray, firsts: np.ndarray) -> list[Share | None]:
    """The choices int64 [R, K] of a call by shard; None for one that nobody chose an expert of.

    `owners` [E] is each expert's shard, `firsts` [N] each shard's first expert.
    """
    flat = choices.reshape(-1)
    owner = owners[flat]
    found: list[Share | None] = []
    for shard, first in enumerate(firsts):
        pairs = np.flatnonzero(owner == shard)
        if not len(pairs):
            found.append(None)
            continue
        of = pairs // choices.shape[1]
        new = np.ones(len(of), bool)
        np.not_equal(of[1:], of[:-1], out=new[1:])
        found.append(Share(pairs, of[new], np.cumsum(new) - 1, flat[pairs] - first))
    return found
