"""Walks from stop to stop over a forest: the data of the task `walk`.

A prompt lists, in random order, the edges a>b of a forest over 24 letters and, for each of its roots r, a jump r=>b to
a letter of another tree; then a start letter. A root is a stop. The walk follows edges to a stop, jumps, follows edges
to the next one, and so on; the answer is its stops, one token each, and every one is the question for the next. How
many steps lie between two stops is written nowhere.

    tokens 0 .. 23                  letters
    tokens 24 .. 47                 the same letters as stops: what an answer consists of
    tokens 48 + 24 * a + b          the edge a>b (a root has an edge to itself)
    tokens 624 + 24 * r + b         the jump r=>b

Legend: B batch, n nodes, R roots, Q questions per prompt, N loops.
"""

from __future__ import annotations

import numpy as np
import torch

from mythos_model.training.tasks.chains import LETTERS, Forest, Questions

STOPS = LETTERS
EDGES = STOPS + LETTERS
JUMPS = EDGES + LETTERS * LETTERS
VOCABULARY = JUMPS + LETTERS * LETTERS


def ask(random: np.random.Generator, forest: Forest, stops: int, deepest: int, asked: int, loops: int) -> Questions:
    """Questions that do not belong to one walk: each begins at a letter or, every other one, at a stop, so that nothing
    before a question helps with it.

    Args:
        forest: its first `stops` nodes are its roots, or, of a permutation, nodes with jumps.
        deepest: steps, at most, that are asked for.
        asked: Q.
        loops: N, of the paths.

    Returns: ids [B, n + R + Q]; of each question the letter after 1 .. N steps, the stop (as a token) that the last
    one is on the way to, and the steps to it (`hops`).
    """
    batch, nodes = forest.parents.shape
    roots = np.arange(stops)
    tree = roots_of(forest)
    wanted = random.integers(1, deepest + 1, (batch, stops))
    elsewhere = tree[:, None, :] != roots[None, :, None]
    landing = _nearest(random, forest.depths[:, None, :], wanted - 1, elsewhere)

    wanted = random.integers(1, deepest + 1, (batch, asked))
    letter = _nearest(random, forest.depths[:, None, :], wanted)
    stop = _nearest(random, np.take_along_axis(forest.depths, landing, 1)[:, None, :] + 1, wanted)
    from_stop = random.random((batch, asked)) < 0.5
    start = np.where(from_stop, stop, letter)
    after_letter = np.take_along_axis(forest.parents, letter, 1)
    first = np.where(from_stop, np.take_along_axis(landing, stop, 1), after_letter)

    names = random.permuted(np.tile(np.arange(LETTERS), (batch, 1)), axis=1)[:, :nodes]
    queries = np.take_along_axis(names, start, 1) + STOPS * from_stop
    path, at = [], first
    for _ in range(loops):
        path.append(np.take_along_axis(names, at, 1))
        at = np.take_along_axis(forest.parents, at, 1)
    answer = STOPS + np.take_along_axis(names, np.take_along_axis(tree, first, 1), 1)
    ids = np.concatenate([write_map(random, forest, names, roots, landing), queries], 1)
    steps = np.take_along_axis(forest.depths, first, 1) + 1
    return Questions(*(torch.from_numpy(array) for array in (ids, np.stack(path), answer, steps)))


def write_map(
    random: np.random.Generator, forest: Forest, names: np.ndarray, roots: np.ndarray, landing: np.ndarray
) -> np.ndarray:
    """The tokens of edges and jumps in random order: int64 [B, n + R].

    Args:
        names: int64 [B, n], the nodes' letters.
        roots: int64 [R], nodes. landing: int64 [B, R], the nodes that their jumps lead to.
    """
    edges = EDGES + LETTERS * names + np.take_along_axis(names, forest.parents, 1)
    jumps = JUMPS + LETTERS * names[:, roots] + np.take_along_axis(names, landing, 1)
    return random.permuted(np.concatenate([edges, jumps], 1), axis=1)


def roots_of(forest: Forest) -> np.ndarray:
    """The root that each node leads to: int64 [B, n]."""
    at = forest.parents
    for _ in range(int(forest.depths.max())):
        at = np.take_along_axis(forest.parents, at, 1)
    return at


def _nearest(
    random: np.random.Generator, depths: np.ndarray, wanted: np.ndarray, allowed: np.ndarray | None = None
) -> np.ndarray:
    """For each wanted depth [B, Q] one, at random, of the nodes [B, 1, n] that are nearest to it: int64 [B, Q]."""
    distance = np.abs(depths - wanted[:, :, None]) + 0.5 * random.random((*wanted.shape, depths.shape[-1]))
    if allowed is not None:
        distance = np.where(allowed, distance, np.inf)
    nearest: np.ndarray = distance.argmin(-1)
    return nearest
