"""Whatever the schedule, a request gets the tokens, depths and logits, to the bit, that it gets alone."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from row_models import VOCABULARY, RowModel

from mythos_runtime.engine.core import Core
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.pages import Table
from mythos_runtime.engine.request import Request, Running, Token
from mythos_runtime.engine.sequence import Sequence, Span
from mythos_runtime.engine.speculation import Speculation
from mythos_runtime.row_ports import PAGE
from mythos_runtime.sampling import SamplingOptions

CORES: dict[tuple[Any, int, int], Core] = {}


def core_of(row_model: RowModel, threads: int, most_loops: int = 4) -> Core:
    """One for all examples: an example leaves nothing behind, which `idle` holds it to. `most_loops` of a call."""
    key = (row_model.folder, threads, most_loops)
    if key not in CORES:
        CORES[key] = row_model.core(threads=threads, most_loops=most_loops)
    return CORES[key]


def idle(core: Core) -> bool:
    assert core.around is not None
    free = core.around.free == core.around.pages and core.loop.free == core.loop.pages
    return free and core.states.free == core.states.lines and not core.sequences


@dataclass(frozen=True)
class Result:
    """What a request got."""

    tokens: list[int]
    depth: list[int]
    logits: np.ndarray

    @classmethod
    def of(cls, running: Running, tokens: list[Token]) -> Result:
        logits = np.array([token.logits for token in tokens], np.float32)
        return cls(running.tokens, running.depth, logits)

    def begins(self, other: Result) -> bool:
        """Whether it is the beginning of another, to the bit."""
        n = len(self.tokens)
        same = self.tokens == other.tokens[:n] and self.depth == other.depth[:n]
        return same and np.array_equal(self.logits.view(np.int32).ravel(), other.logits[:n].view(np.int32).ravel())


def serve(
    engine: Engine, requests: list[Request], arrivals: list[int], cancels: dict[int, int] | None = None
) -> list[Result]:
    """Run requests that come at these ticks; some are cancelled at one."""
    running: dict[int, Running] = {}
    got: dict[Running, list[Token]] = {}
    tick = 0
    while len(running) < len(requests) or engine.busy:
        for index, (request, arrival) in enumerate(zip(requests, arrivals, strict=True)):
            if arrival == tick:
                running[index] = engine.submit(request)
        for index, when in (cancels or {}).items():
            if when == tick and index in running:
                engine.cancel(running[index])
        for token in engine.tick():
            got.setdefault(token.running, []).append(token)
        tick += 1
        assert tick < 20_000
    assert all(each.finished for each in running.values())
    return [Result.of(running[i], got.get(running[i], [])) for i in range(len(requests))]


@functools.cache
def alone(row_model: RowModel, request: Request) -> Result:
    """The request by itself, its prompt in one piece, one thread, every loop a call of the step as it is."""
    return serve(Engine(core_of(row_model, 1, most_loops=1)), [request], [0])[0]


@st.composite
def some_requests(draw: st.DrawFn, plain: bool = False) -> list[Request]:
    """`plain`: without shared entries and given depths."""
    requests = []
    for row in range(draw(st.integers(1, 6))):
        length = draw(st.sampled_from([1, 2, 5, 31, 32, 33, 60]))
        prompt = np.random.default_rng(draw(st.integers(0, 5))).integers(0, VOCABULARY, length).tolist()
        requests.append(
            Request(
                prompt=tuple(prompt),
                max_new_tokens=draw(st.integers(1, 24)),
                max_loops=draw(st.sampled_from([5, 5, 4, 2, 7])),
                halt_threshold=draw(st.sampled_from([0.99, 0.5, 0.7])),
                policy=draw(st.sampled_from(["lazy", "lazy", "lazy", "full", "lazy" if plain else "share"])),
                depths=tuple(draw(st.sampled_from([(), (), (), () if plain else (1, 2, 1, 1, 1, 2, 1)]))),
                sampling=SamplingOptions(temperature=draw(st.sampled_from([0.0, 0.9])), seed=3),
                eos=frozenset([7]),
                row=row,
            )
        )
    return requests


class Eager(Speculation):
    """Drafts whatever it brings, which is nothing on models so small."""

    def __init__(self, depth: int, length: int) -> None:
        super().__init__(5, depth)
        self.length = length

    def choose(self, running: int, room: int) -> tuple[int, int]:
        return self.depths[0], min(self.length, room)


@st.composite
def some_speculation(draw: st.DrawFn) -> Speculation | None:
    return Eager(draw(st.integers(1, 4)), draw(st.integers(1, 5))) if draw(st.booleans()) else None


def hold_to_alone(row_model: RowModel, threads: int) -> None:
    """Schedules that are drawn."""
    core = core_of(row_model, threads)

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data())
    def check(data: Any) -> None:
        draw = data.draw
        requests = draw(some_requests())
        arrivals = [draw(st.sampled_from([0, 0, 1, 7, 40])) for _ in requests]
        cancels = draw(st.dictionaries(st.integers(0, len(requests) - 1), st.integers(0, 60), max_size=2))
        core.max_lag = draw(st.sampled_from([None, None, 1, 6, 30]))
        core.scheduler.rows = draw(st.sampled_from([64, 64, 9, 1]))
        # Pages for the largest request, or hardly more: the others are sent back again and again.
        taken = Table()
        core.loop.extend(taken, 0, draw(st.sampled_from([0, 90, 135])) * PAGE - 1)
        # And states for all, for a few sequences that lag, or hardly more than enter at a time.
        states = core.states.copy(np.zeros(draw(st.sampled_from([0, 290, 330])), np.int64))
        try:
            engine = Engine(
                core,
                most_running=draw(st.sampled_from([8, 3, 1])),
                chunk=draw(st.sampled_from([64, 20, 5, 1])),
                patience=draw(st.sampled_from([None, 0.0, 0.2, 1.0])),
                loops_per_call=draw(st.sampled_from([None, 1, 2, 9])),
                prefixes=draw(st.sampled_from([0, 0, 1, 3])),
                speculation=draw(some_speculation()),
            )
            results = serve(engine, requests, arrivals, cancels)
            engine.close()
        finally:
            for sequence in list(core.sequences):
                core.close(sequence)
            core.loop.truncate(taken, 0)
            core.states.end(states.tolist())
            core.max_lag, core.scheduler.rows = None, core.graphs.most_rows
        assert idle(core)
        for index, (request, result) in enumerate(zip(requests, results, strict=True)):
            expected = alone(row_model, request)
            assert result.begins(expected)
            assert index in cancels or len(result.tokens) == len(expected.tokens)

    check()


@pytest.mark.parametrize("threads", [1, 2])
def test_any_schedule_gives_what_each_request_gets_alone(row_model: RowModel, threads: int) -> None:
    hold_to_alone(row_model, threads)


def test_requests_that_were_sent_back_do_not_keep_the_others_from_their_pages(row_model: RowModel) -> None:
    core = core_of(row_model, 1)
    prompts = np.random.default_rng(0).integers(0, VOCABULARY, (6, 60)).tolist()
    requests = [
        Request(tuple(prompt), max_new_tokens=9, max_loops=5, halt_threshold=0.7, row=row)
        for row, prompt in enumerate(prompts)
    ]
    taken = Table()
    core.loop.extend(taken, 0, 135 * PAGE - 1)  # 25 pages are left, and each needs 15
    core.max_lag, core.scheduler.rows = 6, 9
    try:
        results = serve(Engine(core, most_running=8, chunk=64, patience=0.0), requests, [0, 1, 1, 1, 1, 40])
    finally:
        core.loop.truncate(taken, 0)
        core.max_lag, core.scheduler.rows = None, core.graphs.most_rows
    assert idle(core)
    for request, result in zip(requests, results, strict=True):
        expected = alone(row_model, request)
        assert result.begins(expected) and len(result.tokens) == len(expected.tokens)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_several_loops_in_a_call_are_the_calls_that_they_stand_for(row_model: RowModel, data: Any) -> None:
    """The same rows, loop for loop, the same pages in the end, and fewer calls."""
    requests = data.draw(some_requests())
    options = {
        "most_running": data.draw(st.sampled_from([8, 3])),
        "chunk": data.draw(st.sampled_from([64, 20])),
        "patience": 0.0,
        "prefixes": data.draw(st.sampled_from([0, 3])),
    }
    traces, counts, calls = [], [], []
    for most_loops in (1, 4):
        core = core_of(row_model, 1, most_loops)
        core.steps = core.rows = core.late = 0
        with pytest.MonkeyPatch.context() as patch:
            trace, called = recorded(core, patch)
            engine = Engine(core, loops_per_call=data.draw(st.sampled_from([2, 3, 9])), **options)
            serve(engine, requests, [0] * len(requests))
            engine.close()
        assert idle(core)
        traces.append(trace)
        calls.append(len(called))
        counts.append((core.steps, core.rows, core.late))
    assert traces[0] == traces[1] and counts[0] == counts[1]
    assert calls[0] == counts[0][0] and calls[1] <= calls[0]


def test_rows_that_stay_together_take_few_calls(row_model: RowModel) -> None:
    core = core_of(row_model, 1)
    with pytest.MonkeyPatch.context() as patch:
        _, called = recorded(core, patch)
        serve(Engine(core, loops_per_call=9), [Request((1, 2, 3), 8, policy="full")], [0])
    assert called == [4, 1] * 8  # five loops, of which a call takes four


def recorded(core: Core, patch: pytest.MonkeyPatch) -> tuple[list[Any], list[int]]:
    """What runs from now on, loop for loop: the depths and rows of its spans, in no order: within a call it stays as it
    was. And how many loops each call ran."""
    trace: list[Any] = []
    called: list[int] = []
    opened: dict[Sequence, int] = {}
    step = core.graphs.step

    def noted(states: Any, lines: np.ndarray, spans: list[Span], tables: Any) -> int:
        numbers = [opened.setdefault(span.sequence, len(opened)) for span in spans]
        ran: int = step(states, lines, spans, tables)
        called.append(ran)
        rows = sorted((number, span.depth, span.first, span.last) for number, span in zip(numbers, spans, strict=True))
        trace.extend([(number, depth + ahead, *ends) for number, depth, *ends in rows] for ahead in range(ran))
        return ran

    patch.setattr(core.graphs, "step", noted)
    return trace, called
