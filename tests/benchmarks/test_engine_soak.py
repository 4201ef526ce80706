"""The engine's soak: mixed requests on a small model, and what it must not let pass."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from golden_bundles import Bundles

from benchmarks.engine_soak import alone, growth, requests, run
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.opening import open_engine
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.pages import PagedCache, Table
from mythos_runtime.session import Options


def engine_of(bundles: Bundles) -> Engine:
    options = Options(threads=1, engine="python")
    engine = open_engine(
        bundles["mla_decode"], EngineOptions(memory=1 << 18, max_loops=9, most_running=8, prefixes=2), options=options
    )
    assert isinstance(engine, Engine)
    return engine


def asks(vocabulary: int) -> Iterator[list[int]]:
    draw = random.Random(1)
    while True:
        yield [draw.randrange(vocabulary) for _ in range(draw.randrange(1, 12))]


@pytest.mark.slow
def test_mixed_requests_get_their_own_answers_and_leave_nothing(bundles: Bundles) -> None:
    engine = engine_of(bundles)
    asked = requests(asks(engine.spec.vocab_size), 16, 16)
    soak = run(engine, asked, alone(engine, asked), 400)
    assert not soak.faults and soak.tokens >= 400 and soak.ended["cancelled"] and soak.ended["length"]


def test_what_is_wrong_or_kept_is_a_fault(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(bundles)
    asked = requests(asks(engine.spec.vocab_size), 16, 16)
    answers = alone(engine, asked)
    answers[3][0][-1] += 1
    engine.prefixes.clear()
    give_back = PagedCache.truncate
    leaks = iter([True])

    def truncate(cache: PagedCache, table: Table, length: int) -> None:
        if length or not len(table.pages) or not next(leaks, False):
            give_back(cache, table, length)

    monkeypatch.setattr(PagedCache, "truncate", truncate)
    soak = run(engine, asked, answers, 300)
    assert any("request 3 came to" in fault for fault in soak.faults)
    assert "were not given back" in soak.faults[-1]


def test_growth_is_that_behind_the_warm_up() -> None:
    assert growth([1, 50, *[100] * 8]) == pytest.approx(0, abs=1e-9)
    assert growth([100, 100, *range(100, 108)]) == pytest.approx(0.07)
