"""Plants in the engine's pages, states and calls: requests that it serves together are held to the eager model alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from row_models import VOCABULARY, RowModel

from mythos_runtime.engine import states
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.graphs import RowGraphs
from mythos_runtime.engine.pages import PagedCache, Table
from mythos_runtime.engine.request import Request
from mythos_runtime.engine.states import States

Patch = pytest.MonkeyPatch
NEW = 5
PROMPTS = (4, 33, 40)  # one page, and two
THRESHOLDS = (None, 0.5, None)


def requests() -> list[Request]:
    r = np.random.default_rng(7)
    return [
        Request(tuple(r.integers(0, VOCABULARY, length).tolist()), NEW, halt_threshold=threshold)
        for length, threshold in zip(PROMPTS, THRESHOLDS, strict=True)
    ]


@functools.cache
def true(row_model: RowModel) -> list[tuple[list[int], list[int]]]:
    """Per request, tokens and depths of the eager model, which begins anew for every token."""
    found = []
    for request in requests():
        ids, depths = list(request.prompt), []
        for _ in range(NEW):
            out = row_model.model(torch.tensor([ids]), halt_threshold=request.halt_threshold)
            ids.append(int(out.logits[0, -1].argmax()))
            depths.append(int(out.depth[0, -1]))
        found.append((ids[len(request.prompt) :], depths))
    return found


def wrong(row_model: RowModel) -> str | None:
    """What the engine gets wrong first; None where nothing is."""
    expected = true(row_model)
    engine = Engine(row_model.core())
    try:
        running = [engine.submit(request) for request in requests()]
        ticks = 0
        while engine.busy:
            engine.tick()
            ticks += 1
            if ticks > 2000:
                return "it does not end"
    except (IndexError, KeyError, ValueError, AssertionError) as error:
        return f"it fails: {error}"
    for number, (each, (tokens, depths)) in enumerate(zip(running, expected, strict=True)):
        if each.tokens != tokens:
            return f"request {number}: token {[a == b for a, b in zip(each.tokens, tokens, strict=False)].index(False)}"
        if each.depth[-NEW:] != depths:
            return f"request {number}: depths"
    return None


def _pages_reversed(patch: Patch) -> None:
    sound = Table.pages.fget  # type: ignore[attr-defined]
    patch.setattr(Table, "pages", property(lambda self: sound(self)[::-1].copy()))


def _a_page_taken_twice(patch: Patch) -> None:
    sound = PagedCache._take

    def take(self: PagedCache) -> int:
        page = sound(self)
        self._free.append(page)
        return page

    patch.setattr(PagedCache, "_take", take)


def _first_state_of_zeros(patch: Patch) -> None:
    sound = states.first_state
    patch.setattr(states, "first_state", lambda *given: np.zeros_like(sound(*given)))


def _capped(change: Callable[[np.ndarray, np.ndarray], None]) -> Callable[[Patch], None]:
    def plant(patch: Patch) -> None:
        sound = RowGraphs._cap

        def cap(self: RowGraphs, span: Any, cap: np.ndarray, last: np.ndarray, threshold: np.ndarray) -> None:
            sound(self, span, cap, last, threshold)
            change(last, threshold)

        patch.setattr(RowGraphs, "_cap", cap)

    return plant


def _at_once(last: np.ndarray, threshold: np.ndarray) -> None:
    threshold[...] = 0


def _as_trained(last: np.ndarray, threshold: np.ndarray) -> None:
    threshold[threshold == np.float32(0.5)] = 0.99


def _answers_swapped(patch: Patch) -> None:
    sound = RowGraphs.leave

    def leave(self: RowGraphs, *given: Any, **named: Any) -> Any:
        return np.roll(sound(self, *given, **named), 1, axis=0)

    patch.setattr(RowGraphs, "leave", leave)


def _ids_of_the_neighbour(patch: Patch) -> None:
    sound = States.begin

    def begin(self: States, ids: np.ndarray, encoded: np.ndarray, initial: np.ndarray | None = None) -> np.ndarray:
        return sound(self, ids, np.roll(encoded, 1, axis=0), initial)

    patch.setattr(States, "begin", begin)


PLANTS: dict[str, tuple[Callable[[Patch], None], str]] = {
    "pages in reverse": (_pages_reversed, "request 1"),
    "a page taken twice": (_a_page_taken_twice, "request 0|it fails"),
    "first states of zeros": (_first_state_of_zeros, "request 0"),
    "everybody halts at once": (_capped(_at_once), "request 0"),
    "a request's own threshold is lost": (_capped(_as_trained), "request 1"),
    "answers of other rows": (_answers_swapped, "request 0"),
    "encoded rows of the neighbour": (_ids_of_the_neighbour, "request 0"),
}


def test_a_sound_engine_does_as_the_eager_model(row_model: RowModel) -> None:
    assert wrong(row_model) is None


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_engine_is_caught_at_the_request_that_it_spoils(
    name: str, row_model: RowModel, monkeypatch: Patch
) -> None:
    true(row_model)
    plant, where = PLANTS[name]
    plant(monkeypatch)
    found = wrong(row_model)
    assert found is not None, f"{name} slips past"
    assert any(found.startswith(each) for each in where.split("|")), found
