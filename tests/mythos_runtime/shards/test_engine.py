"""The engine over shards, against the engine over the same bundle as a whole: every bit of every logit."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from golden_bundles import Bundles
from shard_answers import answers, engine_of, requests
from shard_threads import shards_of

from mythos_runtime import load
from mythos_runtime.errors import RequestError, Unavailable

HOPS = "hops"


@pytest.fixture(scope="module")
def whole(bundles: Bundles) -> list[tuple[list[int], list[int], bytes]]:
    return answers(engine_of(bundles[HOPS]), requests(8))


@pytest.mark.parametrize("count", [1, 3])
def test_answers_have_the_bits_of_the_whole(count: int, sharded: Any, whole: list[Any]) -> None:
    shards, _ = shards_of(sharded(HOPS, count))
    engine = engine_of(sharded(HOPS, count), shards=shards)
    assert answers(engine, requests(8)) == whole
    assert {len(set(depth)) for _, depth, _ in whole} != {1}  # positions halt at several depths


def test_a_lost_shard_fails_those_that_need_it(sharded: Any, whole: list[Any]) -> None:
    """In the tick that finds it gone; the others go on, and later ones find another in its place."""
    bundle = sharded(HOPS, 3)
    shards, starter = shards_of(bundle)
    engine, asked = engine_of(bundle, shards=shards), requests(8)
    running = [engine.submit(request) for request in asked]
    for _ in range(4):
        engine.tick()
    starter.refuse = {2}
    starter.servers[2].cut()
    while engine.busy:
        engine.tick()
    lost = [each for each in running if each.error is not None]
    assert lost and all(isinstance(each.error, Unavailable) for each in lost)
    assert "shard 3 of 3 is being started anew" in str(lost[0].error)
    for each, (tokens, depth, _) in zip(running, whole, strict=True):
        assert each.tokens == tokens[: len(each.tokens)] and each.depth == depth[: len(each.depth)]
        assert each.error is not None or each.tokens == tokens
    assert shards.ready == 2 and engine.core.loop.free == engine.core.loop.pages  # nothing of the lost ones is held
    starter.refuse = set()
    until = time.monotonic() + 20
    while shards.ready < 3 and time.monotonic() < until:
        time.sleep(0.05)
    assert shards.restarts == 1 and answers(engine, asked) == whole


def test_those_that_do_not_need_it_go_on(sharded: Any, whole: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are told apart by what they chose, not by whom they were packed with."""
    bundle = sharded(HOPS, 2)
    shards, starter = shards_of(bundle)
    engine, asked = engine_of(bundle, shards=shards), requests(6)
    seen: list[set[Any]] = []
    part = engine.core.graphs._parts["step"]
    run = type(part).run

    def watched(self: Any, frame: Any, spans: Any, tables: Any) -> None:
        try:
            run(self, frame, spans, tables)
        except Unavailable as error:
            rows = np.repeat(np.arange(len(spans)), [span.rows for span in spans])
            needs = (frame["expert_index"] >= 2).any(1)  # the second shard's
            assert error.sequences == {spans[n].sequence for n in rows[needs]}
            seen.append({span.sequence for span in spans} - error.sequences)
            raise

    monkeypatch.setattr(type(part), "run", watched)
    for request in asked:
        engine.submit(request)
    engine.tick()
    starter.refuse = {1}
    starter.servers[1].cut()
    while engine.busy:
        engine.tick()
    assert seen


def test_what_a_model_says_of_itself(sharded: Any, bundles: Bundles) -> None:
    """Caches and generation work as those of the whole; what needs the model as one graph says so."""
    with load(sharded(HOPS, 2), threads=1) as apart, load(bundles[HOPS], threads=1) as one:
        assert "experts in 2 shards" in apart.session.description
        with pytest.raises(RequestError, match="experts of this bundle are in shards"):
            apart.forward([[1, 2, 3]])
        logits = [model.forward([[1, 2, 3]], cache=model.new_cache(1, 8)).logits for model in (apart, one)]
        assert np.array_equal(logits[0].view(np.int32), logits[1].view(np.int32))
