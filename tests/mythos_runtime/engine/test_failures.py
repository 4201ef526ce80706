"""Ticks that fail: what was chosen is told first, and who is left goes on as if nothing had been."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from row_models import RowModel
from test_exact import Eager, alone, core_of, idle, serve

from mythos_runtime.engine import Request, Running, Token
from mythos_runtime.engine.chunks import Answer, Leaving
from mythos_runtime.engine.engine import Engine
from mythos_runtime.errors import BackendFailed, RequestError


def test_wrong_logits_end_their_request_alone(row_model: RowModel, monkeypatch: pytest.MonkeyPatch) -> None:
    core = core_of(row_model, 1)
    good, bad = Request([3, 4], max_new_tokens=5, row=0), Request([3, 4], max_new_tokens=5, row=1)
    expected = serve(Engine(core), [good], [0])[0]
    engine = Engine(core)
    running = [engine.submit(good), engine.submit(bad)]
    leave = core.leave

    def nan_in_second(leaving: list[Leaving]) -> list[Answer]:
        answers = leave(leaving)
        for each, answer in zip(leaving, answers, strict=True):
            if each.sequence is running[1].sequence:
                answer.logits[3] = np.nan
        return answers

    monkeypatch.setattr(core, "leave", nan_in_second)
    while engine.busy:
        engine.tick()
    assert (running[0].finished, running[0].tokens) == ("length", expected.tokens)
    assert running[1].finished == "error" and "nan" in str(running[1].error) and not running[1].tokens
    assert idle(core)


def test_what_a_tick_chose_before_it_failed_is_told(row_model: RowModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the failure, by the next tick, unless whom it concerned is gone."""
    core = row_model.core()
    alone = Engine(core, patience=0.0, loops_per_call=1)
    second = alone.submit(Request([1, 2], 6, policy="full"))
    expected = [token.logits for token in _all(alone)]
    for stays in (True, False):
        engine = Engine(core, patience=0.0, loops_per_call=1)
        first = engine.submit(Request([3], 1, max_loops=1))
        engine.tick()
        second = engine.submit(Request([1, 2], 6, policy="full"))

        def failing(*given: Any) -> None:
            raise BackendFailed("planted")

        with monkeypatch.context() as patch:
            patch.setattr(core.graphs, "step", failing)
            (told,) = engine.tick()
        assert told.running is first and first.finished == "length"
        if stays:
            with pytest.raises(BackendFailed, match="planted"):
                engine.tick()
        else:
            engine.cancel(second)
            second = engine.submit(Request([1, 2], 6, policy="full"))
        assert all(np.array_equal(*pair) for pair in zip([t.logits for t in _all(engine)], expected, strict=True))
        engine.close()


class Failing(Eager):
    """Fails once, at the token with this number, counted over all requests."""

    def __init__(self, length: int, number: int) -> None:
        super().__init__(2, length)
        self.number = number

    def went(self, loops: int) -> None:
        self.number -= 1
        if self.number == 0:
            raise BackendFailed("planted")


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("drafts", [0, 3])
def test_what_was_chosen_before_the_rest_of_its_leave_failed_is_told(
    row_model: RowModel, drafts: int, stays: bool
) -> None:
    """And who had no answer by then begins anew, where the failure stopped at nobody's being gone, too."""
    core, failing = core_of(row_model, 1), Failing(drafts, 5)
    requests = [Request((number + 1,), 6, max_loops=3) for number in range(3)]
    engine = Engine(core, patience=1.0, speculation=failing)
    running = [engine.submit(request) for request in requests]
    told: dict[Running, list[Token]] = {each: [] for each in running}

    def tick() -> None:
        for token in engine.tick():
            told[token.running].append(token)
        assert [[token.id for token in told[each]] for each in running] == [each.tokens for each in running]

    while failing.number > 0:
        tick()
    assert engine.waiting and not all(len(each.tokens) == len(running[0].tokens) for each in running)
    if stays:
        with pytest.raises(BackendFailed, match="planted"):
            engine.tick()
    else:
        engine.cancel(running[0])
    while engine.busy:
        tick()
    for each, request in list(zip(running, requests, strict=True))[not stays :]:
        expected = alone(row_model, request)
        assert (each.tokens, each.depth) == (expected.tokens, expected.depth)
        assert np.array_equal([token.logits for token in told[each]], expected.logits)
    assert idle(core)


def test_a_leave_that_fails_as_a_whole_is_made_again(row_model: RowModel, monkeypatch: pytest.MonkeyPatch) -> None:
    core = core_of(row_model, 1)
    requests = [Request((number + 1,), 4, max_loops=3) for number in range(3)]
    engine = Engine(core, patience=1.0)
    running = [engine.submit(request) for request in requests]

    def failing(*given: Any) -> None:
        raise BackendFailed("planted")

    with monkeypatch.context() as patch:
        patch.setattr(core.graphs, "leave", failing)
        with pytest.raises(BackendFailed, match="planted"):
            _all(engine)
    assert len(_all(engine)) == 12
    assert [each.tokens for each in running] == [alone(row_model, request).tokens for request in requests]
    assert idle(core)


def test_one_that_is_not_admitted_waits_still(row_model: RowModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its sequence cannot be made, in a tick that tells another's last token."""
    core = row_model.core()
    engine = Engine(core, most_running=1, patience=0.0, loops_per_call=1)
    first, second = engine.submit(Request([3], 1, max_loops=1)), engine.submit(Request([1, 2], 2))
    engine.tick()

    def failing(*given: Any) -> None:
        raise BackendFailed("planted")

    with monkeypatch.context() as patch:
        patch.setattr(core, "open", failing)
        (told,) = engine.tick()
        assert told.running is first and (engine.running, engine.waiting) == (0, 1)
        with pytest.raises(BackendFailed, match="planted"):
            engine.tick()
    assert len(_all(engine)) == 2 and second.finished == "length"
    engine.close()


def _all(engine: Engine) -> list[Token]:
    return [token for _ in iter(lambda: engine.busy, False) for token in engine.tick()]


def test_nobody_waits_for_ever_behind_a_leave_that_failed(row_model: RowModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One waits for memory until another ends, and those that ran are sent back, too."""
    core, failing = core_of(row_model, 1), Failing(0, 4)
    requests = [Request((number + 1,), 6, max_loops=3) for number in range(3)]
    engine = Engine(core, patience=1.0, speculation=failing)
    running = [engine.submit(request) for request in requests]
    while failing.number > 1:
        engine.tick()
    engine.queues.make_room()
    assert (engine.running, engine.waiting) == (2, 1)
    with pytest.raises(BackendFailed, match="planted"):
        _all(engine)
    _all(engine)
    assert [each.tokens for each in running] == [alone(row_model, request).tokens for request in requests]
    assert idle(core)


@pytest.mark.parametrize(("name", "value"), [("prefixes", -1), ("chunk", 0)])
def test_numbers_that_are_none_are_refused(row_model: RowModel, name: str, value: int) -> None:
    with pytest.raises(RequestError, match=f"{name} should be an integer of at least {value + 1}"):
        Engine(row_model.core(), **{name: value})  # type: ignore[arg-type]
