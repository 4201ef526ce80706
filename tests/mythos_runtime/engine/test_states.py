"""States of positions that lag are a pool of their own: more positions fit the same memory, and who finds no state for
its next tokens runs what it lags, before anybody is sent back. The answers stay what they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from golden_bundles import Bundles
from golden_families import GOLDEN
from row_models import VOCABULARY, RowModel
from test_exact import Eager, Result, core_of, idle, serve

from mythos_model import VARIANTS, MythosModel, load_checkpoint
from mythos_runtime import CapacityError, load, read_manifest
from mythos_runtime.engine import Request, open_engine
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.memory import Memory, Room, position_bytes, state_bytes
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.sequence import Sequence
from mythos_runtime.op_library import find_op_library
from mythos_runtime.row_ports import PAGE
from mythos_runtime.session import Options


@contextmanager
def states_left(core: Core, count: int) -> Iterator[None]:
    """Somebody else holds the other states; what was the peak is forgotten."""
    taken = core.states.copy(np.zeros(core.states.free - count, np.int64))
    core.states.peak = core.states.lines - count
    try:
        yield
    finally:
        core.states.end(taken.tolist())


def easy(row: int, prompt: int, tokens: int) -> Request:
    """Its tokens halt after the first loop, so that it lags more with every one."""
    ids = np.random.default_rng(row).integers(0, VOCABULARY, prompt).tolist()
    return Request(ids, tokens, halt_threshold=1e-6, row=row)


def alone(core: Core, requests: list[Request]) -> list[Result]:
    return [serve(Engine(core), [request], [0])[0] for request in requests]


def same(results: list[Result], expected: list[Result]) -> bool:
    pairs = zip(results, expected, strict=True)
    return all(one.begins(other) and len(one.tokens) == len(other.tokens) for one, other in pairs)


@pytest.fixture(scope="module")
def ouro(tmp_path_factory: pytest.TempPathFactory) -> RowModel:
    """Without layers behind the loop: a prompt waits at the first depth until its last token enters."""
    if find_op_library() is None:
        pytest.skip("the native operators are not built: make native")
    return RowModel.of(load_checkpoint(GOLDEN / "ouro_decode").model(torch.float32), tmp_path_factory.mktemp("ouro"))


@pytest.mark.parametrize(("int8_cache", "more"), [(False, 1.5), (True, 3.9)])
def test_the_same_memory_holds_more_positions_than_with_a_state_for_each(int8_cache: bool, more: float) -> None:
    with torch.device("meta"):
        spec = MythosModel(VARIANTS["1b"]).with_int8_cache(int8_cache).spec
    size, loops, lagging = 1 << 30, spec.trained_loops, (64 + 16) * (64 + 64)  # of `mythos serve`
    room = Memory.room(spec, size, loops, lagging)
    each = size // (PAGE * (position_bytes(spec, loops) + state_bytes(spec)))
    assert room.lines == lagging and room.around > more * each
    assert room.around * PAGE * position_bytes(spec, loops) + room.lines * state_bytes(spec) <= size


def test_a_sequence_takes_room_for_states_as_far_as_it_may_lag(row_model: RowModel, ouro: RowModel) -> None:
    core, other = core_of(row_model, 1), ouro.core()
    core.max_lag = other.max_lag = 64
    try:
        assert (core.most_states("lazy", 256), core.most_states("full", 256)) == (320, 256)
        assert (other.most_states("lazy", 256), other.most_states("full", 256)) == (None, 256)
    finally:
        core.max_lag = None
    assert core.most_states("lazy", 256) is None
    assert Room.of(3, 100, 5, None) == Room.of(3, 100, 5, 320) == Room(12, 60, 300)
    assert Room.of(3, 100, 5, 40).lines == 120


def test_who_finds_no_state_runs_what_it_lags_and_nobody_is_sent_back(row_model: RowModel) -> None:
    core = core_of(row_model, 1)
    requests = [easy(row, prompt=5, tokens=40) for row in range(6)]
    expected = alone(core, requests)
    with states_left(core, 60):  # together they would lag at 6 * 44 positions
        engine = Engine(core)
        running = [engine.submit(request) for request in requests]
        opened: set[Sequence] = set()
        while engine.busy:
            engine.tick()
            opened |= core.sequences
        assert core.states.peak == core.states.lines
    assert len(opened) == len(requests)
    assert [each.tokens for each in running] == [result.tokens for result in expected]
    with states_left(core, 60):
        assert same(serve(Engine(core), requests, [0, 0, 1, 1, 9, 30]), expected)
    assert idle(core)


def test_kept_sequences_give_their_states_before_those_that_lag_less_run(row_model: RowModel) -> None:
    core = core_of(row_model, 1)
    requests = [easy(row, prompt=33, tokens=24) for row in range(3)]
    expected = alone(core, requests)
    with states_left(core, 70):  # one that is kept has 56
        engine = Engine(core, prefixes=3)
        results = [serve(engine, [request], [0])[0] for request in requests]
        assert len(engine.prefixes) == 1
        late = core.late
        engine.close()
    assert same(results, expected) and core.late == late
    assert idle(core)


def test_rounds_of_a_tick_share_the_states_and_nobody_is_sent_back(row_model: RowModel) -> None:
    core = core_of(row_model, 1)
    requests = [easy(row, prompt=3, tokens=30) for row in range(5)]
    expected = alone(core, requests)
    with states_left(core, 18):
        engine, opened = Engine(core, speculation=Eager(2, 8)), set[Sequence]()
        running = [engine.submit(request) for request in requests]
        while engine.busy:
            engine.tick()
            opened |= core.sequences
        assert engine.speculation is not None and engine.speculation.drafted > 0
    assert len(opened) == len(requests)
    assert [each.tokens for each in running] == [result.tokens for result in expected]
    assert idle(core)


def test_a_prompt_gets_the_states_of_a_kept_one_that_lags_though_another_is_older(ouro: RowModel) -> None:
    prompts = np.random.default_rng(0).integers(0, VOCABULARY, (3, 45)).tolist()
    done, lagging = Request(prompts[0], 1, policy="full"), Request(prompts[1], 1, halt_threshold=1e-6)
    decoding, new = easy(7, prompt=2, tokens=60), Request(prompts[2], 2)
    expected = alone(ouro.core(), [new])
    core = ouro.core(lines=50)
    engine = Engine(core, prefixes=4)
    serve(engine, [done, lagging], [0, 40])
    assert len(engine.prefixes) == 2 and core.states.free == 5
    decodes = engine.submit(decoding)
    while not decodes.tokens:
        engine.tick()
    waits = engine.submit(new)
    for _ in range(40):
        engine.tick()
    assert waits.finished == "length" and decodes.finished is None
    assert waits.tokens == expected[0].tokens
    assert len(engine.prefixes) == 2, "the one that lags nowhere, and the new one"
    engine.close()
    assert core.states.free == core.states.lines and core.loop.held == 0


def test_a_prompt_enters_as_far_as_there_are_states(row_model: RowModel) -> None:
    core = core_of(row_model, 1)
    request = Request(list(range(30)), 3)
    expected = alone(core, [request])
    with states_left(core, 9):
        engine = Engine(core)
        running = engine.submit(request)
        engine.tick()
        assert running.fed == 9
        while engine.busy:
            engine.tick()
    assert running.tokens == expected[0].tokens and idle(core)


def test_a_prompt_that_begins_alike_takes_states_for_what_is_common(ouro: RowModel) -> None:
    first, other = np.random.default_rng(0).integers(0, VOCABULARY, (2, 50)).tolist()
    kept, more = (Request(prompt, 1, halt_threshold=1e-6) for prompt in (first, other))
    again = Request([*first[:34], 0, *other[:5]], 4, halt_threshold=1e-6)
    assert again.prompt[34] != first[34]
    expected = alone(ouro.core(), [again])
    for lines, others, left in ((95, 0, 1), (110, 1, 1), (140, 1, 2)):
        core = ouro.core(lines=lines)
        engine = Engine(core, prefixes=4)
        serve(engine, [kept, more][: 1 + others], [0, 40][: 1 + others])
        running = engine.submit(again)
        engine.tick()
        assert running.reused == 34 and len(engine.prefixes) == left, lines
        while engine.busy:
            engine.tick()
        assert running.tokens == expected[0].tokens
        engine.close()
        assert core.states.free == core.states.lines and core.loop.held == 0


@pytest.mark.parametrize("options", [{}, {"policy": "full"}, {"max_loops": 0}, {"halt_threshold": 0.3}])
def test_a_prompt_is_longer_than_there_are_states(ouro: RowModel, options: dict[str, Any]) -> None:
    roomy, tight = ouro.core(), ouro.core(lines=20)
    prompts = np.random.default_rng(0).integers(0, VOCABULARY, (2, 50)).tolist()
    requests = [Request(prompt, 8, row=row, **options) for row, prompt in enumerate(prompts)]
    expected = alone(roomy, requests)
    assert same(serve(Engine(tight), requests, [0, 0]), expected)
    assert tight.states.free == tight.states.lines == 20 and tight.loop.held == 0


def test_full_depth_needs_states_for_what_enters_alone(ouro: RowModel) -> None:
    prompt = np.random.default_rng(0).integers(0, VOCABULARY, 50).tolist()
    for policy, most in (("full", 6), ("lazy", 51)):
        core = ouro.core()
        serve(Engine(core, chunk=6), [Request(prompt, 8, policy=policy, halt_threshold=0.3)], [0])
        assert core.states.peak >= most if policy == "lazy" else core.states.peak == most


def test_longer_requests_fit_an_engine_of_the_same_memory(bundles: Bundles) -> None:
    """Of a size that would hold 48 positions, one page, if each had a state."""
    path = bundles["gqa_decode"]
    spec = read_manifest(path).spec
    size = 48 * (position_bytes(spec, spec.trained_loops) + state_bytes(spec))
    engine = open_engine(
        path, EngineOptions(memory=size, most_running=1, max_lag=8, chunk=4), options=Options(engine="python")
    )
    assert isinstance(engine, Engine)
    assert engine.core.memory.bytes <= size and engine.core.memory.longest == 64 == spec.max_seq_len
    with pytest.raises(CapacityError, match="does not fit the engine's memory by itself"):
        open_engine(path, EngineOptions(memory=size, most_running=8)).submit(Request([1], 64))
    prompt, options = list(range(1, 20)), {"max_new_tokens": 46, "halt_threshold": 1e-6}
    running = engine.submit(Request(prompt, **options))
    while engine.busy:
        engine.tick()
    assert [running.tokens] == load(path).generate_all([prompt], **options).tokens
    assert engine.core.states.peak <= 12
