"""Questions about chains of pointers: the data of the task `hops`.

A prompt lists the edges a>b of a forest over 24 letters in random order (a root points to itself), then start
letters. The answer to a start is the root that it leads to; its number of hops k is written nowhere.

    tokens 0 .. 23                letters
    tokens 24 + 24 * a + b        the edge a>b
    tokens 600, 601               unused

Legend: B batch, n nodes, Q questions per prompt, N loops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LETTERS = 24
VOCABULARY = LETTERS + LETTERS * LETTERS + 2
REACHES = (1, 1, 2, 3, 4, 8)  # how far back a node looks for its parent: 1 makes one long chain, 8 a bush
NARROW = (1, 1, 2)


@dataclass(frozen=True)
class Forest:
    """Parents int64 [B, n] (a root's is itself) and depths int64 [B, n] (a root's is 0)."""

    parents: np.ndarray
    depths: np.ndarray


@dataclass(frozen=True)
class Questions:
    """A batch of prompts.

    Attributes:
        ids: int64 [B, n + Q], edges, then starts.
        path: int64 [N, B, Q], the letter after 1, 2, .. N hops.
        answer: int64 [B, Q], the root.
        hops: int64 [B, Q], k.
    """

    ids: Tensor
    path: Tensor
    answer: Tensor
    hops: Tensor


def grow_forest(
    random: np.random.Generator, batch: int, nodes: int, roots: int, deepest: int, reaches: tuple[int, ...] = REACHES
) -> Forest:
    """Random forests whose nodes are at most `deepest` hops from their root."""
    reach = random.choice(reaches, size=batch)
    parents, depths = np.zeros((batch, nodes), np.int64), np.zeros((batch, nodes), np.int64)
    rows = np.arange(batch)
    parents[:, :roots] = np.arange(roots)
    for node in range(roots, nodes):
        parent = node - 1 - (random.random(batch) * np.minimum(reach, node)).astype(np.int64)
        too_deep = depths[rows, parent] >= deepest
        parent = np.where(too_deep, random.integers(0, roots, batch), parent)
        parents[:, node] = parent
        depths[:, node] = depths[rows, parent] + 1
    return Forest(parents, depths)


def grow_twins(random: np.random.Generator, batch: int, hops: int) -> tuple[Forest, int]:
    """Forests whose trees all have the same shape, as many as fit: nothing but the edges tells the answer.

    In an ordinary forest the root of the largest tree is a good guess for a deep question. Here every tree has the
    same size and the same depth, `hops`, so any guess by shape is right once in as many times as there are trees.

    Returns: the forests and the number of their trees (4 to 5 hops, 3 to 7, 2 to 11).
    """
    trees = min(4, LETTERS // (hops + 1))
    if trees < 2:
        raise ValueError(f"two trees {hops} deep do not fit {LETTERS} letters; the most is {LETTERS // 2 - 1}")
    size = LETTERS // trees
    parents, depths = np.zeros((batch, size), np.int64), np.zeros((batch, size), np.int64)
    rows = np.arange(batch)
    for node in range(1, size):
        parent = np.full(batch, node - 1)
        if node > hops:  # the chain stands; the rest hangs anywhere that does not make it longer
            order = random.random((batch, node)) + (depths[:, :node] >= hops)
            parent = order.argmin(1)
        parents[:, node] = parent
        depths[:, node] = depths[rows, parent] + 1
    offset = np.repeat(np.arange(trees) * size, size)
    return Forest(np.tile(parents, (1, trees)) + offset, np.tile(depths, (1, trees))), trees


def shuffle_letters(random: np.random.Generator, batch: int, nodes: int) -> Forest:
    """Random permutations instead of forests, for the very first lesson: follow an edge."""
    parents = random.permuted(np.tile(np.arange(nodes), (batch, 1)), axis=1)
    return Forest(parents, np.zeros_like(parents))


def ask(random: np.random.Generator, forest: Forest, hops: np.ndarray, loops: int) -> Questions:
    """Name the nodes, shuffle the edges, and ask from nodes as near to the wanted hops [B, Q] as there are."""
    batch, nodes = forest.parents.shape
    letters = random.permuted(np.tile(np.arange(LETTERS), (batch, 1)), axis=1)[:, :nodes]
    order = random.permuted(np.tile(np.arange(nodes), (batch, 1)), axis=1)
    source = np.take_along_axis(letters, order, 1)
    target = np.take_along_axis(letters, np.take_along_axis(forest.parents, order, 1), 1)
    distance = np.abs(forest.depths[:, None, :] - hops[:, :, None]) + 0.5 * random.random((*hops.shape, nodes))
    start = distance.argmin(-1)

    path, at = [], start
    for hop in range(max(loops, nodes)):
        at = np.take_along_axis(forest.parents, at, 1)
        if hop < loops:
            path.append(np.take_along_axis(letters, at, 1))
    arrays = (
        np.concatenate([LETTERS + LETTERS * source + target, np.take_along_axis(letters, start, 1)], 1),
        np.stack(path),
        np.take_along_axis(letters, at, 1),
        np.take_along_axis(forest.depths, start, 1),
    )
    return Questions(*(torch.from_numpy(array) for array in arrays))
