"""Plants in the engine's pages, states, schedule and calls: what it serves together is held to the eager model alone.

Four requests of different thresholds run at once, one of them over the end of a page. Two more come when these have
ended, one after the other, and begin like the last of them, on its pages; and a fork runs what lags. A plant is caught
at the request, token and value that it spoils first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from row_models import VOCABULARY, RowModel

from mythos_runtime.engine import chunks, core, states
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.graphs import RowGraphs
from mythos_runtime.engine.pages import PagedCache, Table
from mythos_runtime.engine.prefixes import Prefixes
from mythos_runtime.engine.request import Request, Running
from mythos_runtime.engine.sequence import Sequence, Span
from mythos_runtime.engine.states import ENCODED, TOKEN, States
from mythos_runtime.row_ports import PAGE

Patch = pytest.MonkeyPatch
NEW = 6
LENGTHS = (4, 29, 33, 40)  # a page has 32 positions
THRESHOLDS = (None, 0.7, None, 0.5)
FORKED, AGAIN = len(LENGTHS), len(LENGTHS) + 1  # the numbers of those that begin like the last one
TICKS = 2000


def requests() -> list[Request]:
    r = np.random.default_rng(7)
    prompts = [tuple(r.integers(0, VOCABULARY, length).tolist()) for length in LENGTHS]
    first = [Request(prompt, NEW, halt_threshold=t) for prompt, t in zip(prompts, THRESHOLDS, strict=True)]
    forked = [*prompts[-1][:37], *r.integers(0, VOCABULARY, 5).tolist()], [*prompts[-1], 3]
    return [*first, *(Request(tuple(prompt), NEW, halt_threshold=THRESHOLDS[-1]) for prompt in forked)]


@functools.cache
def true(row_model: RowModel) -> list[list[tuple[int, int, np.ndarray]]]:
    """Per request and token: id, depth and logits of the eager model, which begins anew for every token."""
    found = []
    for request in requests():
        ids, tokens = list(request.prompt), []
        for _ in range(NEW):
            out = row_model.model(torch.tensor([ids]), halt_threshold=request.halt_threshold)
            logits = out.logits[0, -1].numpy()
            ids.append(int(logits.argmax()))
            tokens.append((ids[-1], int(out.depth[0, -1]), logits))
        found.append(tokens)
    return found


def wrong(row_model: RowModel) -> str | None:
    """What the engine gets wrong first; None where nothing is."""
    expected, given = true(row_model), requests()
    engine = Engine(row_model.core(), prefixes=4, patience=0.5)  # given: who leaves with whom rests on no clock
    got: dict[Running, list[np.ndarray]] = {}

    def finish() -> bool:
        for _ in range(TICKS):
            if not engine.busy:
                return True
            for token in engine.tick():
                got.setdefault(token.running, []).append(token.logits)
        return False

    running = [engine.submit(request) for request in given[:FORKED]]
    try:
        if not finish():
            return "it does not end"
        for request in given[FORKED:]:
            running.append(engine.submit(request))
            if not finish():
                return "it does not end"
    except (IndexError, KeyError, ValueError, AssertionError) as error:
        return f"it fails: {type(error).__name__} {error}"
    for number, (each, tokens) in enumerate(zip(running, expected, strict=True)):
        for at, (token, depth, logits) in enumerate(tokens):
            where = f"request {number}, token {at}: "
            if at >= len(each.tokens):
                return where + f"ended by {each.finished}: {each.error}"
            if each.depth[at] != depth:
                return where + "depth"
            if not np.allclose(got[each][at], logits, atol=1e-3 * np.abs(logits).max()):
                return where + "logits"
            if each.tokens[at] != token:
                return where + "id"
    if [each.reused for each in running[FORKED:]] != [37, 40]:
        return "nothing was shared"
    engine.close()
    memory = engine.core
    found = late(memory)
    if found is not None:
        return found
    assert memory.around is not None
    free = memory.around.free == memory.around.pages and memory.loop.free == memory.loop.pages
    return None if free and memory.states.free == memory.states.lines else "memory is lost"


def late(engine: core.Core) -> str | None:
    """A fork's token that runs every loop, and with it all that lags, is held to the same token of what was forked."""
    sequence = engine.open(engine.graphs.spec.trained_loops, 0.5)

    def fed(to: Sequence, ids: tuple[int, ...], forced: bool) -> chunks.Answer:
        engine.enter([chunks.Chunk(to, np.array(ids), forced=np.full(len(ids), forced))])
        engine.run([to])
        return engine.leave([chunks.Leaving(to)])[0]

    fed(sequence, requests()[-1].prompt, False)
    twin = engine.fork(sequence)
    assert len(twin.lines) > 2 and len(set(twin.filled)) > 1, "nothing lags"
    alone, forked = fed(sequence, (3,), True), fed(twin, (3,), True)
    engine.close(sequence)
    engine.close(twin)
    same = alone.depth == forked.depth and np.array_equal(alone.logits, forked.logits)
    return None if same else "a fork that runs deeper: "


# -- plants ------------------------------------------------------------------------------------------------------------


def method(owner: type, name: str) -> Callable[[Callable[..., Any]], Callable[[Patch], None]]:
    """A method is another: `plant(sound, self, *arguments)`."""

    def planting(plant: Callable[..., Any]) -> Callable[[Patch], None]:
        def patch(monkeypatch: Patch) -> None:
            sound = getattr(owner, name)
            monkeypatch.setattr(owner, name, lambda *given, **named: plant(sound, *given, **named))

        return patch

    return planting


@method(PagedCache, "_take")
def page_taken_twice(sound: Any, cache: PagedCache) -> int:
    page: int = sound(cache)
    if len(cache._free) % 3 == 0:
        cache._free.append(page)
    return page


@method(PagedCache, "fork")
def fork_without_holding(sound: Any, cache: PagedCache, table: Table, length: int) -> Table:
    return Table(table.pages[: -(-length // PAGE)].copy())


@method(PagedCache, "extend")
def written_without_a_copy(sound: Any, cache: PagedCache, table: Table, first: int, last: int) -> None:
    """A page that others hold too is replaced by an empty one, not by a copy."""
    before = table.pages.copy()
    sound(cache, table, first, last)
    for page in table.pages[: len(before)][table.pages[: len(before)] != before]:
        cache.memory[:, page] = 0


@method(PagedCache, "truncate")
def page_too_few(sound: Any, cache: PagedCache, table: Table, length: int) -> None:
    sound(cache, table, max(length - 32, 0))


def pages_reversed(patch: Patch) -> None:
    """Read from the last to the first: right until one is added."""
    sound = Table.pages.fget  # type: ignore[attr-defined]
    patch.setattr(Table, "pages", property(lambda self: sound(self)[::-1]))


@method(States, "begin")
def encoded_of_the_neighbour(sound: Any, self: States, ids: Any, encoded: np.ndarray, initial: Any = None) -> Any:
    return sound(self, ids, np.roll(encoded, 1, axis=0), initial)


@method(States, "begin")
def line_of_two(sound: Any, self: States, *given: Any) -> Any:
    lines = sound(self, *given)
    self._free.extend(lines[:1].tolist())  # none, where all that enters has its lines already
    return lines


@method(States, "copy")
def lagging_states_of_one(sound: Any, self: States, lines: np.ndarray) -> Any:
    """A fork's positions that lag all go on from the state of the first one."""
    return sound(self, np.repeat(lines[:1], len(lines)))


@method(States, "copy")
def lagging_states_begin_anew(sound: Any, self: States, lines: np.ndarray) -> Any:
    """A fork's positions that lag have forgotten the loops that they ran."""
    copies, threshold = sound(self, lines), self.threshold[lines]
    self.end(copies[::-1].tolist())
    first = self.arrays[self._tensors[0].name][lines]
    copies = self.begin(self.arrays[TOKEN][lines], self.arrays[ENCODED][lines], first)
    self.threshold[copies], self.cap[copies] = threshold, self.cap[lines]
    return copies


def first_states_of_zeros(patch: Patch) -> None:
    sound = states.first_state
    patch.setattr(states, "first_state", lambda *given: np.zeros_like(sound(*given)))


def thresholds(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Patch], None]:
    @method(RowGraphs, "step")
    def plant(sound: Any, self: RowGraphs, states: States, lines: np.ndarray, *given: Any) -> int:
        states.threshold[lines] = change(states.threshold[lines])
        ran: int = sound(self, states, lines, *given)
        return ran

    return plant


@method(RowGraphs, "step")
def every_loop_the_first(sound: Any, self: RowGraphs, states: Any, lines: Any, spans: Any, tables: Any) -> int:
    firsts = [Span(span.sequence, 0, span.first, span.last) for span in spans]
    ran: int = sound(self, states, lines, firsts, tables[:1])
    return ran


@method(RowGraphs, "step")
def tables_of_the_neighbour(sound: Any, self: RowGraphs, states: Any, lines: Any, spans: Any, tables: Any) -> int:
    moved = [[*line[1:], line[0]] for line in tables]
    fits = all(len(table) > span.last // 32 for line in moved for table, span in zip(line, spans, strict=True))
    ran: int = sound(self, states, lines, spans, moved if fits else tables)
    return ran


@method(RowGraphs, "step")
def tables_of_the_first_loop(sound: Any, self: RowGraphs, states: Any, lines: Any, spans: Any, tables: Any) -> int:
    ran: int = sound(self, states, lines, spans, [tables[0]] * len(tables))
    return ran


@method(core.Core, "_together")
def earlier_positions_are_forgotten(sound: Any, self: core.Core, spans: Any, waiting: Any, most_loops: Any) -> int:
    """Rows stay together to the end, whoever is due before them."""
    return min(self.graphs.most_loops, *(span.sequence.job.stop - span.depth for span in spans))


@method(RowGraphs, "leave")
def answers_of_other_rows(sound: Any, self: RowGraphs, *given: Any) -> Any:
    return np.roll(sound(self, *given), 1, axis=0)


def late_rows_never_run(patch: Patch) -> None:
    """Of what is due only the last position runs."""
    sound = core.due

    def due(sequence: Any, halted: np.ndarray) -> Span | None:
        span = sound(sequence, halted)
        return span and Span(sequence, span.depth, max(span.first, sequence.job.first), span.last)

    patch.setattr(core, "due", due)


def last_position_alone_decides(patch: Patch) -> None:
    """A chunk is through as soon as its last position has halted, whoever is still going."""
    sound = core.due

    def due(sequence: Any, halted: np.ndarray) -> Span | None:
        job = sequence.job
        return None if halted[sequence.states(job.last, job.last)].all() and job.depth else sound(sequence, halted)

    patch.setattr(core, "due", due)


@method(Prefixes, "find")
def a_token_too_many(sound: Any, self: Prefixes, prompt: np.ndarray, kind: Any) -> Any:
    found = sound(self, prompt, kind)
    return found and (found[0], min(found[1] + 1, len(prompt) - 1))


PLANTS: dict[str, tuple[Callable[[Patch], None], str]] = {
    "a page is given to two": (page_taken_twice, "request 0, token 0: |it fails"),
    "pages in reverse": (pages_reversed, "request 1, token 4: "),
    "a fork does not hold its pages": (fork_without_holding, f"request {AGAIN}, token 0: "),
    "a shared page is written without a copy": (written_without_a_copy, f"request {FORKED}, token 0: logits"),
    "a page too few is kept": (page_too_few, "request |it fails"),
    "encoded rows of the neighbour": (encoded_of_the_neighbour, "request 0, token 0: "),
    "a line of state is given to two": (line_of_two, "request 0, token 0: "),
    "lagging states of a fork are one's": (lagging_states_of_one, "a fork that runs deeper: "),
    "lagging states of a fork begin anew": (lagging_states_begin_anew, "a fork that runs deeper: "),
    "first states of zeros": (first_states_of_zeros, "request 0, token 0: "),
    "everybody halts at once": (thresholds(np.zeros_like), "request 0, token 0: depth"),
    "a request's own threshold is lost": (
        thresholds(lambda held: np.full_like(held, 0.99)),
        "request 1, token 0: ",
    ),
    "every loop is told that it is the first": (every_loop_the_first, "request 0, token 0: "),
    "pages of the neighbour are read": (tables_of_the_neighbour, "request 0, "),
    "pages of the first loop are read in every one": (tables_of_the_first_loop, "request "),
    "earlier positions are not waited for": (earlier_positions_are_forgotten, "request "),
    "answers of other rows": (answers_of_other_rows, "request 0, token 0: logits"),
    "late rows never run": (late_rows_never_run, "request 1, "),
    "the last position decides for its chunk": (
        last_position_alone_decides,
        "request 1, token 0: |request 2, token 0: ",
    ),
    "a token too many is shared": (a_token_too_many, f"request {FORKED}, token 0: logits"),
}


pytestmark = pytest.mark.parametrize("row_model", ["mla"], indirect=True)


def test_a_sound_engine_does_as_the_eager_model(row_model: RowModel) -> None:
    assert wrong(row_model) is None


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_engine_is_caught_at_the_request_that_it_spoils(
    name: str, row_model: RowModel, monkeypatch: Patch
) -> None:
    plant, where = PLANTS[name]
    true(row_model)
    plant(monkeypatch)
    found = wrong(row_model)
    assert found is not None, f"{name} slips past"
    assert any(found.startswith(each) for each in where.split("|")), found
