"""The questions of `hops`, checked by walking their prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mythos_model.training.tasks import chains
from mythos_model.training.tasks.chains import LETTERS
from mythos_model.training.tasks.evaluate_hops import BEYOND, TWINS, held_out, rank_correlation


def edges_of(prompt: list[int]) -> dict[int, int]:
    pairs = [divmod(token - LETTERS, LETTERS) for token in prompt]
    assert all(0 <= source < LETTERS and 0 <= target < LETTERS for source, target in pairs)
    edges = dict(pairs)
    assert len(edges) == len(prompt)  # every letter has one edge
    return edges


def walk(edges: dict[int, int], letter: int) -> list[int]:
    """The letters passed, the start first and the root last."""
    path = [letter]
    while edges[path[-1]] != path[-1]:
        path.append(edges[path[-1]])
    return path


@pytest.mark.parametrize("nodes", [6, 24])
def test_answers_lie_at_the_end_of_the_chain(nodes: int) -> None:
    random = np.random.default_rng(0)
    forest = chains.grow_forest(random, 8, nodes, roots=3, deepest=5)
    questions = chains.ask(random, forest, random.integers(1, 6, (8, 4)), loops=7)
    for row, ids in enumerate(questions.ids.tolist()):
        edges = edges_of(ids[:nodes])
        for q, start in enumerate(ids[nodes:]):
            path = walk(edges, start)
            assert len(path) - 1 == int(questions.hops[row, q]) <= 5
            assert path[-1] == int(questions.answer[row, q])
            padded = path[1:] + [path[-1]] * 8
            assert questions.path[:, row, q].tolist() == padded[:7]


@pytest.mark.parametrize("hops", TWINS)
def test_twin_trees_cannot_be_told_by_their_shape(hops: int) -> None:
    forests, trees = chains.grow_twins(np.random.default_rng(hops), 5, hops)
    for parents, depths in zip(forests.parents, forests.depths, strict=True):
        size = len(parents) // trees
        shapes = {tuple(parents[start : start + size] - start) for start in range(0, len(parents), size)}
        assert len(shapes) == 1
        assert depths.max() == hops
        assert (parents == np.arange(len(parents))).sum() == trees


def test_two_trees_must_fit() -> None:
    with pytest.raises(ValueError, match="two trees 12 deep do not fit 24 letters; the most is 11"):
        chains.grow_twins(np.random.default_rng(0), 1, 12)


def test_held_out_questions_have_the_hops_they_say() -> None:
    sample = held_out(each=4)
    assert sample.hops.unique().tolist() == sorted((*TWINS, *BEYOND))
    for ids, answer, hops, trees in zip(sample.ids.tolist(), sample.answer, sample.hops, sample.trees, strict=True):
        edges = edges_of(ids[:-1])
        path = walk(edges, ids[-1])
        assert (path[-1], len(path) - 1) == (int(answer), int(hops))
        assert sum(source == target for source, target in edges.items()) == int(trees)


def test_rank_correlation() -> None:
    k = torch.tensor([1, 1, 2, 3, 4])
    assert rank_correlation(k, k * k) == pytest.approx(1.0)
    assert rank_correlation(k, -k) == pytest.approx(-1.0)
    assert rank_correlation(torch.tensor([1, 2, 3, 4]), torch.tensor([2, 1, 4, 3])) == pytest.approx(0.6)
    assert rank_correlation(k, torch.zeros(5)) is None
