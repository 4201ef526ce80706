"""Held-out walks of the task `walk`, and what a model makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mythos_model.families.openmythos import MythosModel
from mythos_model.training.tasks import chains, walks
from mythos_model.training.tasks.evaluate_hops import rank_correlation

TRAINED = range(1, 7)  # steps that training asks for
MIXED = 0  # the level whose stretches are of all these lengths
ANSWER = 12  # stops of a walk
SEED = 30_000  # training draws from (seed, step): these walks are none of its own


@dataclass(frozen=True)
class HeldOut:
    """One walk per prompt.

    All maps are alike: four trees that are chains of six letters, with jumps that lead around them in a random order.
    How easy a walk is, is only where the jumps land. A guess is right once in four times at the first stop and once
    in three at the next ones.

    Attributes:
        input_ids: int64 [Q, 29].
        answer: int64 [Q], the first stop.
        answers: int64 [Q, 12], all stops.
        steps: int64 [Q, 12], to each of them; the first stretch has no jump, and hence at most 5.
        level: int64 [Q], the steps of every stretch; 0: drawn for each.
    """

    input_ids: Tensor
    answer: Tensor
    answers: Tensor
    steps: Tensor
    level: Tensor


@dataclass(frozen=True)
class BySteps:
    """Figures of all stretches of so many steps, from a stop to the next: share of right stops, mean halting depth."""

    steps: int
    asked: int
    right: float
    depth: float


@dataclass(frozen=True)
class ByLevel:
    """Figures of the walks of one level: shares of right stops and of walks without a wrong one, mean depth."""

    level: int
    walks: int
    right: float
    whole: float
    depth: float


@dataclass(frozen=True)
class Report:
    """What `evaluate` found; `rank_correlation` (Spearman's) is of steps with the halting depth, over all stretches.

    It is None where every stop halted at the same depth.
    """

    loops: int
    rank_correlation: float | None
    by_steps: list[BySteps]
    by_level: list[ByLevel]


def held_out(each: int = 256, seed: int = SEED) -> HeldOut:
    """`each` walks of every level."""
    random = np.random.default_rng(seed)
    return HeldOut(
        *(torch.cat(columns) for columns in zip(*(_walks(random, each, s) for s in (MIXED, *TRAINED)), strict=True))
    )


def _walks(random: np.random.Generator, count: int, level: int) -> tuple[Tensor, ...]:
    """The columns of `HeldOut`, of one level."""
    longest = TRAINED[-1]
    forest, trees = chains.grow_twins(random, count, longest - 1)  # node i of a tree is i hops from its root
    size = forest.parents.shape[1] // trees
    rows = np.arange(count)
    names = random.permuted(np.tile(np.arange(chains.LETTERS), (count, 1)), axis=1)
    around = random.permuted(np.tile(np.arange(trees), (count, 1)), axis=1)
    following = np.zeros((count, trees), np.int64)
    np.put_along_axis(following, around, np.roll(around, -1, 1), 1)
    steps = random.integers(1, longest + 1, (count, trees)) if level == MIXED else np.full((count, trees), level)
    landing = following * size + steps - 1
    roots = np.arange(trees) * size

    tree = random.integers(0, trees, count)
    hops = np.minimum(random.integers(1, longest, count) if level == MIXED else np.full(count, level), size - 1)
    start = names[rows, tree * size + hops]
    stops, lengths = [walks.STOPS + names[rows, roots[tree]]], [hops]
    while len(stops) < ANSWER:
        lengths.append(steps[rows, tree])
        tree = following[rows, tree]
        stops.append(walks.STOPS + names[rows, roots[tree]])
    ids = np.concatenate([walks.write_map(random, forest, names, roots, landing), start[:, None]], 1)
    answers = np.stack(stops, 1)
    columns = (ids, answers[:, 0], answers, np.stack(lengths, 1), np.full(count, level))
    return tuple(torch.from_numpy(column) for column in columns)


@torch.no_grad()
def evaluate(model: MythosModel, sample: HeldOut | None = None) -> Report:
    """Ask for every stop behind the right ones before it, at the loops of training.

    Where all stops of a walk are right, so is the answer that the model generates, and only there.
    """
    sample = held_out() if sample is None else sample
    ids = torch.cat([sample.input_ids, sample.answers[:, :-1]], 1)
    outputs = [model(part) for part in ids.split(256)]
    asked = slice(sample.input_ids.shape[1] - 1, None)
    right = torch.cat([out.logits[:, asked].argmax(-1) for out in outputs]) == sample.answers
    depth = torch.cat([out.depth[:, asked] for out in outputs]).float()
    later = torch.zeros_like(right)
    later[:, 1:] = True
    by_steps = []
    for steps in sample.steps[later].unique().tolist():
        mine = later & (sample.steps == steps)
        by_steps.append(BySteps(steps, int(mine.sum()), _share(right[mine]), float(depth[mine].mean())))
    by_level = []
    for level in sample.level.unique().tolist():
        mine = sample.level == level
        whole = _share(right[mine].all(1))
        by_level.append(ByLevel(level, int(mine.sum()), _share(right[mine]), whole, float(depth[mine].mean())))
    correlation = rank_correlation(sample.steps.flatten(), depth.flatten())
    return Report(model.config.max_loop_iters, correlation, by_steps, by_level)


def _share(right: Tensor) -> float:
    return float(right.float().mean())
