"""Held-out questions of the task `hops`, and what a model makes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mythos_model.families.openmythos import MythosModel
from mythos_model.training.tasks import chains

TRAINED = range(1, 9)  # hops that training asks for
TWINS = range(1, 12)  # all that fit two trees of one shape
BEYOND = (12, 14, 16)  # asked of ordinary forests: no two trees so deep fit 24 letters
SEED = 20_000  # training draws from (seed, step): these questions are none of its own


@dataclass(frozen=True)
class HeldOut:
    """One question per prompt: ids int64 [Q, 25], answer, hops and trees int64 [Q].

    `trees` is the number of roots: 1 / trees is the chance of a guess. Up to 11 hops all trees of a prompt have one
    shape, so that a guess by size or depth has no better chance; from 12 on the largest tree is the better guess.
    """

    ids: Tensor
    answer: Tensor
    hops: Tensor
    trees: Tensor


@dataclass(frozen=True)
class ByHops:
    """Figures of the questions of one k: shares of right answers, mean halting depth, the chance of a guess."""

    hops: int
    asked: int
    chance: float
    right: float  # at the loops of training
    right_deeper: float  # at more loops, enough for 16 hops
    depth: float  # where it stopped in the deeper run


@dataclass(frozen=True)
class Report:
    """What `evaluate` found; `rank_correlation` (Spearman's) is of k with the halting depth, over all questions.

    It is None where every question halted at the same depth.
    """

    loops: int
    deeper_loops: int
    rank_correlation: float | None
    by_hops: list[ByHops]


def held_out(each: int = 256, hops: tuple[int, ...] = (*TWINS, *BEYOND), seed: int = SEED) -> HeldOut:
    """`each` questions for every number of hops."""
    random = np.random.default_rng(seed)
    parts = []
    for k in hops:
        if k in TWINS:
            forest, trees = chains.grow_twins(random, each, k)
        else:
            trees, forest = 4, _with_depth(random, each, k)
        questions = chains.ask(random, forest, np.full((each, 1), k), 1)
        if not bool((questions.hops == k).all()):
            raise AssertionError(f"a forest holds no chain of {k} hops")
        parts.append((questions.ids, questions.answer[:, 0], questions.hops[:, 0], torch.full((each,), trees)))
    return HeldOut(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _with_depth(random: np.random.Generator, count: int, hops: int) -> chains.Forest:
    """Ordinary forests of 24 nodes and 4 roots that do hold a chain of `hops`."""
    found: list[chains.Forest] = []
    have = 0
    while have < count:
        forest = chains.grow_forest(random, 4 * count, chains.LETTERS, 4, hops, chains.NARROW)
        deep = forest.depths.max(1) == hops
        found.append(chains.Forest(forest.parents[deep], forest.depths[deep]))
        have += int(deep.sum())
    parents, depths = (np.concatenate([getattr(f, name) for f in found])[:count] for name in ("parents", "depths"))
    return chains.Forest(parents, depths)


@torch.no_grad()
def evaluate(model: MythosModel, questions: HeldOut | None = None, deeper_loops: int = 20) -> Report:
    """Ask the questions at the loops of training and at more."""
    questions = held_out() if questions is None else questions
    loops = model.config.max_loop_iters
    right, depth = {}, torch.zeros(0)
    for most in (loops, deeper_loops):
        outputs = [model(part, max_loops=most) for part in questions.ids.split(256)]
        guess = torch.cat([out.logits[:, -1] for out in outputs]).argmax(-1)
        depth = torch.cat([out.depth[:, -1] for out in outputs]).float()
        right[most] = (guess == questions.answer).float()
    rows = []
    for k in questions.hops.unique().tolist():
        mine = questions.hops == k
        trees = float(questions.trees[mine].float().mean())
        at_training, deeper = (float(right[most][mine].mean()) for most in (loops, deeper_loops))
        rows.append(ByHops(k, int(mine.sum()), 1 / trees, at_training, deeper, float(depth[mine].mean())))
    return Report(loops, deeper_loops, rank_correlation(questions.hops, depth), rows)


def rank_correlation(x: Tensor, y: Tensor) -> float | None:
    """Spearman's, with mean ranks for ties; None where one of the two is constant."""
    found = float(torch.corrcoef(torch.stack([_ranks(x), _ranks(y)]))[0, 1])
    return found if math.isfinite(found) else None


def _ranks(values: Tensor) -> Tensor:
    _distinct, place, count = values.unique(return_inverse=True, return_counts=True)
    ends = count.cumsum(0).double()
    return (ends - (count - 1) / 2)[place]  # type: ignore[no-any-return]
