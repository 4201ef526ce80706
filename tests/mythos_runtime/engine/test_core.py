"""Sequences at the core: against the eager model, through forks and truncations, and what goes wrong when the engine
cheats."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from row_models import POSITIONS, VOCABULARY, RowModel
from test_exact import core_of, idle

from mythos_model import load_checkpoint
from mythos_runtime.engine import core as core_module
from mythos_runtime.engine.chunks import Answer, Chunk, Leaving
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.scheduler import due
from mythos_runtime.engine.sequence import Sequence, Span

LIMIT, THRESHOLD = 5, 0.7
GOLDEN_FAMILIES = Path(__file__).parents[2] / "golden_families"


def ids_of(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCABULARY, count)


def feed(core: Core, chunks: list[tuple[Sequence, np.ndarray]]) -> list[Answer]:
    """Every position's answer."""
    sequences = [sequence for sequence, _ in chunks]
    core.enter([Chunk(sequence, ids) for sequence, ids in chunks])
    done: list[Sequence] = []
    while len(done) < len(sequences):
        done = core.step(sequences)
    return core.leave([Leaving(sequence, every=True) for sequence in sequences])


@functools.cache
def alone(row_model: RowModel, ids: tuple[int, ...]) -> Answer:
    """One sequence in one piece."""
    core = core_of(row_model, 1)
    sequence = core.open(LIMIT, THRESHOLD)
    parts = [feed(core, [(sequence, np.array(ids[at : at + 64]))])[0] for at in range(0, len(ids), 64)]
    core.close(sequence)
    return Answer(np.concatenate([part.logits for part in parts]), np.concatenate([part.depth for part in parts]))


def same(row_model: RowModel, answer: Answer, ids: tuple[int, ...]) -> bool:
    """Whether the answers to the last ids of a sequence are what they are alone, to the bit."""
    expected, n = alone(row_model, ids), len(answer.depth)
    bits = np.array_equal(answer.logits.view(np.int32), expected.logits[-n:].view(np.int32))
    return bits and np.array_equal(answer.depth, expected.depth[-n:])


def test_computes_what_the_eager_model_computes(row_model: RowModel) -> None:
    """Token by token, with the depths left out that no token needed."""
    core, ids = row_model.core(), ids_of(1, POSITIONS)
    with torch.no_grad():
        expected = row_model.model(torch.tensor(ids)[None], max_loops=LIMIT, halt_threshold=THRESHOLD, early_exit=False)
    sequence = core.open(LIMIT, THRESHOLD)
    for position, logits in enumerate(expected.logits[0].numpy()):
        (answer,) = feed(core, [(sequence, ids[position : position + 1])])
        assert answer.depth[0] == expected.depth[0, position]
        assert np.abs(answer.logits[0] - logits).max() < 2e-5 * np.abs(logits).max()
    assert core.steps < LIMIT * POSITIONS
    assert len(set(expected.depth[0].tolist())) >= 3


def test_forks_and_truncations_change_nothing(row_model: RowModel) -> None:
    core = core_of(row_model, 1)

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data())
    def check(data: Any) -> None:
        draw = data.draw
        known: dict[Sequence, tuple[int, ...]] = {core.open(LIMIT, THRESHOLD): ()}
        try:
            for _ in range(draw(st.integers(1, 12))):
                act = draw(st.sampled_from(["feed", "feed", "fork", "truncate", "close"]))
                sequence = draw(st.sampled_from(list(known)))
                if act == "feed":
                    chunks = {}
                    for each in dict.fromkeys([sequence, draw(st.sampled_from(list(known)))]):  # in the order drawn
                        count = min(draw(st.sampled_from([1, 2, 20, 31])), POSITIONS - len(known[each]))
                        chunks[each] = ids_of(draw(st.integers(0, 3)), count)
                    chunks = {each: ids for each, ids in chunks.items() if len(ids)}
                    for each, ids in chunks.items():
                        known[each] += tuple(ids.tolist())
                    if chunks:
                        for each, answer in zip(chunks, feed(core, list(chunks.items())), strict=True):
                            assert same(row_model, answer, known[each])
                elif act == "fork" and len(known) < 4:
                    known[core.fork(sequence)] = known[sequence]
                elif act == "truncate":
                    length = draw(st.integers(0, len(known[sequence])))
                    core.truncate(sequence, length)
                    known[sequence] = known[sequence][:length]
                elif act == "close" and len(known) > 1:
                    core.close(sequence)
                    del known[sequence]
        finally:
            for sequence in list(core.sequences):
                core.close(sequence)
        assert idle(core)

    check()


def _no_catching_up(monkeypatch: pytest.MonkeyPatch, core: Core) -> None:
    def only_new(sequence: Sequence, halted: np.ndarray) -> Span | None:
        span, job = due(sequence, halted), sequence.job
        assert job is not None
        return None if span is None else Span(sequence, span.depth, max(span.first, job.first), span.last)

    monkeypatch.setattr(core_module, "due", only_new)


def _shallower_entries(monkeypatch: pytest.MonkeyPatch, core: Core) -> None:
    leave = core.leave

    def leave_and_copy(leaving: list[Leaving]) -> list[Answer]:
        answers = leave(leaving)
        for sequence in (each.sequence for each in leaving):
            for depth in range(1, sequence.limit):
                if sequence.filled[depth] < sequence.length:
                    core.loop.extend(sequence.loop[depth], sequence.filled[depth], sequence.length - 1)
                    core.loop.memory[:, sequence.loop[depth].pages] = core.loop.memory[
                        :, sequence.loop[depth - 1].pages
                    ]
                    sequence.filled[depth] = sequence.length
        return answers

    monkeypatch.setattr(core, "leave", leave_and_copy)


def _frozen_states(monkeypatch: pytest.MonkeyPatch, core: Core) -> None:
    step = core.graphs.step

    def step_and_restore(states: Any, lines: np.ndarray, *rest: Any) -> int:
        halted = lines[states.halted[lines]]
        before = states.arrays["h"][halted].copy()
        ran: int = step(states, lines, *rest)
        states.arrays["h"][halted] = before
        return ran

    monkeypatch.setattr(core.graphs, "step", step_and_restore)


@pytest.mark.parametrize("cheat", [_no_catching_up, _shallower_entries, _frozen_states])
def test_an_engine_that_cheats_is_found_out(row_model: RowModel, cheat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    core, ids = row_model.core(), tuple(ids_of(1, 40).tolist())
    alone(row_model, ids)
    cheat(monkeypatch, core)
    sequence = core.open(LIMIT, THRESHOLD)
    assert not all(
        same(row_model, feed(core, [(sequence, np.array(ids[at : at + 1]))])[0], ids[: at + 1]) for at in range(40)
    )


def test_a_call_that_ends_early_holds_no_more_pages(row_model: RowModel) -> None:
    """Of a fork, whose last page is another's too: it is copied where a loop runs, not where one might have."""
    held = []
    for most_loops in (1, 16):
        core = row_model.core(most_loops=most_loops)
        sequence = core.open(LIMIT, np.inf)
        feed(core, [(sequence, ids_of(2, 40))])
        twin = core.fork(sequence)
        twin.threshold = 0.3  # halts before the last loop
        (answer,) = feed(core, [(twin, ids_of(3, 1))])
        assert 1 <= answer.depth[0] < LIMIT
        held.append((core.loop.held, twin.filled))
    assert held[0] == held[1]


def test_an_early_answer_of_an_expectation_is_that_of_fewer_loops(tmp_path: Path) -> None:
    """What drafts are taken from: a sum of states takes what its weights leave of 1 from the last one."""
    model = load_checkpoint(GOLDEN_FAMILIES / "ouro_prefill", exit_rule="weighted").model(torch.float32)
    row_model = RowModel.of(model.eval().requires_grad_(False), tmp_path)
    core, ids = row_model.core(), ids_of(1, 9)
    tokens = torch.tensor(ids)[None]
    sequence = core.open(4, np.inf)
    core.enter([Chunk(sequence, ids, depths=2)])
    core.run([sequence])
    (early,) = core.leave([Leaving(sequence, every=True, early=True)])
    with torch.no_grad():
        expected = row_model.model(tokens, max_loops=2).logits[0].numpy()
    assert np.abs(early.logits - expected).max() < 2e-5 * np.abs(expected).max()
    core.resume(sequence, 0)
    core.run([sequence])
    (whole,) = core.leave([Leaving(sequence, every=True)])
    with torch.no_grad():
        expected = row_model.model(tokens, max_loops=4).logits[0].numpy()
    assert np.abs(whole.logits - expected).max() < 2e-5 * np.abs(expected).max()
    assert np.abs(whole.logits - early.logits).max() > 1e-3 * np.abs(expected).max()
