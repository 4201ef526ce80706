"""The walks of `walk`, checked by walking their maps."""

from __future__ import annotations

import numpy as np
import pytest

from mythos_model.training import Walk
from mythos_model.training.tasks.chains import LETTERS
from mythos_model.training.tasks.evaluate_walk import ANSWER, MIXED, TRAINED, held_out
from mythos_model.training.tasks.walks import EDGES, JUMPS, STOPS, VOCABULARY


def read_map(tokens: list[int]) -> tuple[dict[int, int], dict[int, int]]:
    """Edges and jumps."""
    assert all(EDGES <= token < VOCABULARY for token in tokens)
    edges = dict(divmod(token - EDGES, LETTERS) for token in tokens if token < JUMPS)
    jumps = dict(divmod(token - JUMPS, LETTERS) for token in tokens if token >= JUMPS)
    assert len(edges) + len(jumps) == len(tokens)  # nothing leaves a letter twice
    return edges, jumps


def follow(edges: dict[int, int], letter: int) -> list[int]:
    """The letters from this one to its stop, both included."""
    path = [letter]
    while edges[path[-1]] != path[-1]:
        path.append(edges[path[-1]])
    return path


@pytest.mark.parametrize("lesson", [1, 3])
def test_a_question_leads_to_the_next_stop(lesson: int) -> None:
    task = Walk(batch=4, questions=6)
    task.lesson = lesson
    questions, loops = task._draw(np.random.default_rng(lesson))
    for row, ids in enumerate(questions.ids.tolist()):
        edges, jumps = read_map(ids[:-6])
        assert set(jumps) == {letter for letter, target in edges.items() if letter == target}
        assert all(follow(edges, target)[-1] != stop for stop, target in jumps.items())  # to another tree
        for q, token in enumerate(ids[-6:]):
            first = jumps[token - STOPS] if token >= STOPS else edges[token]
            path = follow(edges, first)
            assert len(path) == int(questions.hops[row, q]) <= task.deepest
            assert STOPS + path[-1] == int(questions.answer[row, q])
            assert questions.path[:, row, q].tolist() == (path + [path[-1]] * loops)[:loops]
    kinds = questions.ids[:, -6:] >= STOPS
    assert kinds.any() and not kinds.all()


def test_the_first_lesson_is_two_steps() -> None:
    questions, loops = Walk(batch=4, questions=6)._draw(np.random.default_rng(0))
    assert loops == len(questions.path) == 2
    for row, ids in enumerate(questions.ids.tolist()):
        edges, jumps = read_map(ids[:-6])
        for q, token in enumerate(ids[-6:]):
            first = jumps[token - STOPS] if token >= STOPS else edges[token]
            assert questions.path[:, row, q].tolist() == [first, edges[first]]
            assert int(questions.answer[row, q]) == STOPS + edges[first]


def test_held_out_walks_visit_the_stops_they_say() -> None:
    sample = held_out(each=3)
    assert sample.level.unique().tolist() == [MIXED, *TRAINED]
    assert sample.answers.shape == sample.steps.shape == (21, ANSWER)
    rows = zip(sample.input_ids.tolist(), sample.answers.tolist(), sample.steps.tolist(), sample.level, strict=True)
    for ids, answers, steps, level in rows:
        edges, jumps = read_map(ids[:-1])
        assert len(jumps) == 4 and len(set(answers)) == 4  # around all trees
        path = follow(edges, ids[-1])[1:]
        for n, (stop, length) in enumerate(zip(answers, steps, strict=True)):
            assert (STOPS + path[-1], len(path)) == (stop, length)
            assert level == MIXED or n == 0 or length == level
            path = follow(edges, jumps[stop - STOPS])
    assert sample.answer.tolist() == sample.answers[:, 0].tolist()
    mixed = sample.steps[sample.level == MIXED]
    assert len(mixed.unique()) > 3
