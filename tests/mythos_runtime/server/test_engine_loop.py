"""The thread that owns the engine: what it does when a tick fails, and when it is told to stop."""

from __future__ import annotations

import gc
import queue
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from engines import ENGINES

from mythos_runtime.engine import AnyEngine, Budget, Request, Running, Token, open_engine
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.errors import BackendFailed, RequestError
from mythos_runtime.manifest import read_manifest
from mythos_runtime.server.engine_loop import EngineLoop
from mythos_runtime.server.served import Served
from mythos_runtime.server.settings import Settings
from mythos_runtime.server.tickets import Accepted, Chosen, Closed, Event, Failed, Overloaded, Ticket
from mythos_runtime.session import EngineChoice, Options

POISON = 13


@dataclass
class Ended:
    """A ticket's events, and when it is over."""

    events: list[Event] = field(default_factory=list)
    over: queue.SimpleQueue[None] = field(default_factory=queue.SimpleQueue)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Failed) or (isinstance(event, Chosen) and event.finished is not None):
            self.over.put(None)

    @property
    def tokens(self) -> list[int]:
        return [event.token for event in self.events if isinstance(event, Chosen)]


def deliver(batch: Sequence[tuple[Ticket, Event]]) -> None:
    for ticket, event in batch:
        ticket.receive(event)


class Poisoned:
    """An engine of either kind whose ticks fail while a poisoned prompt is in it."""

    def __init__(self, engine: AnyEngine) -> None:
        self._engine, self._asked = engine, []  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def submit(self, request: Request) -> Running:
        self._asked.append(self._engine.submit(request))
        running: Running = self._asked[-1]
        return running

    def tick(self) -> list[Token]:
        tokens = self._engine.tick()
        if any(POISON in running.request.prompt and running.tokens for running in self._asked):
            raise RuntimeError("a kernel went wrong")
        return tokens


@pytest.fixture(params=ENGINES)
def opened(small: Path, request: pytest.FixtureRequest) -> Callable[[], AnyEngine]:
    """Engines whose ticks fail while a poisoned prompt is in them."""
    options = Options(engine=request.param)
    return lambda: Poisoned(open_engine(small, EngineOptions(memory=16 << 20, most_running=8), options=options))


def alone(engine: AnyEngine, request: Request) -> list[int]:
    running = engine.submit(request)
    while engine.busy:
        engine.tick()
    return running.tokens


def test_one_that_crashes_takes_nobody_with_it(opened: Callable[[], AnyEngine]) -> None:
    requests = [Request([60 + n, 2, POISON if n == 3 else 4], 10 + n) for n in range(4)]
    expected = [alone(opened(), request) for n, request in enumerate(requests) if n != 3]
    loop = EngineLoop(opened(), opened, deliver, 16)
    ends = [Ended() for _ in requests]
    tickets = [Ticket(request, end) for request, end in zip(requests, ends, strict=True)]
    loop.submit(tickets)
    loop.start()
    for end in ends:
        end.over.get(timeout=30)
    late = Ended()
    loop.submit([Ticket(Request([7, 8], 3), late)])  # and the engine goes on
    late.over.get(timeout=30)
    loop.close()
    failed = ends.pop(3)
    assert isinstance(failed.events[-1], Failed) and "a kernel went wrong" in str(failed.events[-1].error)
    assert [end.tokens for end in ends] == expected
    assert all(sum(isinstance(event, Accepted) for event in end.events) == 1 for end in ends)
    assert loop.stats.restarts == 3  # four, then two, then the one alone
    assert loop.load == 0 and loop.stats.pages_free == loop.stats.pages


def test_who_ran_beside_one_that_crashed_and_left_has_not_failed(small: Path) -> None:
    """A call fails in a tick that has told a token; before the next one, whoever the call failed for leaves."""

    def opened() -> AnyEngine:
        given = EngineOptions(memory=16 << 20, patience=0.0, loops_per_call=1)
        engine = open_engine(small, given, options=Options(1, engine="python"))
        assert isinstance(engine, Engine)
        step = engine.core.step

        def poisoned(*given: Any) -> Any:
            told = tickets[0].running is not None and tickets[0].running.tokens
            if told and any(POISON in each.request.prompt for each in engine.queues.running):
                raise RuntimeError("a kernel went wrong")
            return step(*given)

        engine.core.step = poisoned  # type: ignore[method-assign]
        return engine

    requests = [Request([3], 1, max_loops=1), Request([1, 2], 4), Request([POISON, 2], 4)]
    ends = [Ended() for _ in requests]
    tickets = [Ticket(request, end) for request, end in zip(requests, ends, strict=True)]

    def leaving(batch: Sequence[tuple[Ticket, Event]]) -> None:
        deliver(batch)
        if tickets[0].ended:
            loop.cancel([tickets[2]])

    loop = EngineLoop(opened(), opened, leaving, 16)
    loop.submit(tickets)
    loop.start()
    for end in ends[:2]:
        end.over.get(timeout=60)
    loop.close()
    assert [len(end.tokens) for end in ends] == [1, 4, 0] and loop.load == 0


@pytest.mark.parametrize("kind", ENGINES)
def test_the_pages_of_running_requests_are_not_those_that_are_kept(small: Path, kind: EngineChoice) -> None:
    given = EngineOptions(memory=16 << 20, prefixes=4, patience=1.0)  # they leave together, whatever the clock says
    engine = open_engine(small, given, options=Options(engine=kind))
    prompt = [7, *range(60, 100)]

    def held() -> int:
        return engine.usage.pages - engine.usage.pages_free

    first = alone(engine, Request(prompt, 4))
    kept = held()
    assert engine.usage.prefixes == 1 and kept and engine.pages_running == 0
    several = [engine.submit(Request([*prompt, token], 4)) for token in range(3)]
    while not engine.tick():
        continue
    assert all(running.reused >= len(prompt) for running in several)
    assert kept <= engine.pages_running <= held() < 3 * kept  # shared ones once
    loop, end = EngineLoop(engine, lambda: engine, deliver, 16), Ended()
    loop.submit([Ticket(Request(prompt, 4), end)])
    loop.start()
    end.over.get(timeout=30)
    while engine.busy:
        time.sleep(0.01)
    loop.close()
    assert end.tokens == first
    assert loop.stats.pages_running == 0 and loop.stats.pages_free < loop.stats.pages


def test_a_request_that_fails_behind_a_token_of_the_same_tick_has_no_answer(small: Path) -> None:
    engine = open_engine(small, EngineOptions(memory=16 << 20), options=Options(engine="python"))
    assert isinstance(engine, Engine)
    tick = engine.tick

    def losing() -> list[Token]:
        tokens = tick()
        for token in tokens:
            if POISON in token.running.request.prompt and len(token.running.tokens) == 3:
                engine.queues.fail(token.running, BackendFailed("a part was lost"))
        return tokens

    engine.tick = losing  # type: ignore[method-assign]
    loop = EngineLoop(engine, lambda: engine, deliver, 16)
    ends = [Ended(), Ended()]
    loop.submit([Ticket(Request([60, 2, last], 10), end) for last, end in zip((4, POISON), ends, strict=True)])
    loop.start()
    for end in ends:
        end.over.get(timeout=30)
    loop.close()
    whole, cut = ends
    assert isinstance(whole.events[-1], Chosen) and len(whole.tokens) == 10
    assert isinstance(cut.events[-1], Failed) and "a part was lost" in str(cut.events[-1].error)
    assert len(cut.tokens) == 3 and all(event.finished is None for event in cut.events if isinstance(event, Chosen))


def test_one_engine_at_a_time(opened: Callable[[], AnyEngine]) -> None:
    """Whose tick failed is gone before the next one is opened: there may be no room for both."""
    made: list[weakref.ref[AnyEngine]] = []
    alive: list[int] = []

    def open_next() -> AnyEngine:
        alive.append(sum(engine() is not None for engine in made))
        engine = opened()
        made.append(weakref.ref(engine._engine))  # type: ignore[attr-defined]  # of a `Poisoned`
        return engine

    loop, ends = EngineLoop(open_next(), open_next, deliver, 16), [Ended(), Ended()]
    loop.submit([Ticket(Request([1, 2], 5), ends[0]), Ticket(Request([POISON], 5), ends[1])])
    loop.start()
    for end in ends:
        end.over.get(timeout=30)
    loop.close()
    assert len(ends[0].tokens) == 5 and isinstance(ends[1].events[-1], Failed)
    assert alive == [0, 0, 0]


def test_what_is_served_does_not_hold_the_engine(small: Path) -> None:
    settings = Settings(name="small", most_loops=2)
    served = Served.open(
        small, read_manifest(small, verify_hashes=False), settings, engine=EngineOptions(memory=16 << 20)
    )
    engine = weakref.ref(served.take_engine())
    gc.collect()
    assert engine() is None and served.take_engine().spec is not None


def test_what_a_budget_set_is_set_again(opened: Callable[[], AnyEngine]) -> None:
    """A latency depends on the clock; what was sent before a crash stays as it was."""
    request = Request([60, 2, 4], 30, budget=Budget(latency_ms=0.5))
    loop = EngineLoop(opened(), opened, deliver, 16)
    ends = [Ended(), Ended()]
    loop.submit([Ticket(request, ends[0]), Ticket(Request([60, POISON], 5), ends[1])])
    loop.start()
    for end in ends:
        end.over.get(timeout=30)
    loop.close()
    assert isinstance(ends[1].events[-1], Failed) and loop.stats.restarts == 2
    chosen = [event for event in ends[0].events if isinstance(event, Chosen)]
    depths = tuple(event.depth for event in chosen)
    assert alone(opened(), Request(request.prompt, 30, depths=depths)) == ends[0].tokens  # one run's tokens, all of it


def test_an_engine_that_cannot_be_opened_again_ends_it(opened: Callable[[], AnyEngine]) -> None:
    def no_more() -> AnyEngine:
        raise MemoryError

    loop = EngineLoop(opened(), no_more, deliver, 16)
    ends = [Ended(), Ended()]
    loop.submit([Ticket(Request([POISON], 5), ends[0]), Ticket(Request([1], 50), ends[1])])
    loop.start()
    for end in ends:
        end.over.get(timeout=30)
        assert isinstance(end.events[-1], Failed)
    loop._thread.join(10)
    assert not loop.alive and isinstance(loop.failure, MemoryError)
    with pytest.raises(Closed):
        loop.submit([Ticket(Request([1], 1), Ended())])


def test_cancelled_before_the_next_tick(small: Path) -> None:
    loop = EngineLoop(open_engine(small, EngineOptions(memory=16 << 20)), lambda: open_engine(small), deliver, 2)
    first, second = Ended(), Ended()
    ticket = Ticket(Request([1, 2, 3], 90), first)
    loop.submit([ticket, Ticket(Request([5], 3), second)])
    with pytest.raises(Overloaded):
        loop.submit([Ticket(Request([5], 3), second)])
    loop.cancel([ticket])
    loop.start()
    second.over.get(timeout=30)
    assert ticket.ended and first.tokens == []
    loop.cancel([ticket])  # again: nothing happens
    third = Ended()
    loop.submit([Ticket(Request([5], 3), third)])
    third.over.get(timeout=30)
    assert third.tokens == second.tokens
    loop.close()
    assert loop.load == 0


def test_a_request_that_cannot_even_be_taken_in(small: Path) -> None:
    loop = EngineLoop(open_engine(small, EngineOptions(memory=16 << 20)), lambda: open_engine(small), deliver, 4)
    broken, fine = Ended(), Ended()
    loop.submit([Ticket(Request([1], 2, sampling=None), broken), Ticket(Request([1], 2), fine)])  # type: ignore[arg-type]
    loop.start()
    for end in (broken, fine):
        end.over.get(timeout=30)
    loop.close()
    assert isinstance(broken.events[-1], Failed) and len(fine.tokens) == 2


def test_refusals_and_the_end(small: Path) -> None:
    loop = EngineLoop(open_engine(small, EngineOptions(memory=16 << 20)), lambda: open_engine(small), deliver, 4)
    refused, cut = Ended(), Ended()
    loop.submit([Ticket(Request([70000], 2), refused), Ticket(Request([1], 100), cut)])
    loop.start()
    refused.over.get(timeout=30)
    assert isinstance(refused.events[-1], Failed) and isinstance(refused.events[-1].error, RequestError)
    loop.close()
    assert isinstance(cut.events[-1], Failed) and isinstance(cut.events[-1].error, Closed)
    assert loop.load == 0
