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
from mythos_runtime.engine import Running
from mythos_runtime.engine.engine import Engine
from mythos_runtime.errors import BackendFailed, BackendMissing, RequestError, Unavailable
from mythos_runtime.shards.group import Shards

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
    _there(shards)
    assert shards.restarts == 1 and answers(engine, asked) == whole


def _begun(engine: Engine, count: int) -> list[Running]:
    """Requests that have a token each, so that they go on row by row, and need other experts."""
    running = [engine.submit(request) for request in requests(count)]
    while not all(each.tokens for each in running):
        engine.tick()
    return running


def _there(shards: Shards) -> None:
    """Wait for them all."""
    until = time.monotonic() + 60
    while shards.ready < shards.count:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_those_that_do_not_need_it_go_on(sharded: Any, whole: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are told apart by what they chose, not by whom they were packed with."""
    bundle = sharded(HOPS, 3)
    shards, starter = shards_of(bundle)
    engine = engine_of(bundle, shards=shards)
    seen: list[set[Any]] = []
    part = engine.core.graphs._parts["step"]
    run = type(part).run

    def watched(self: Any, frame: Any, spans: Any, tables: Any) -> None:
        try:
            run(self, frame, spans, tables)
        except Unavailable as error:
            rows = np.repeat(np.arange(len(spans)), [span.rows for span in spans])
            needs = (frame["expert_index"] >= 3).any(1)  # the third shard's
            assert error.sequences == {spans[n].sequence for n in rows[needs]}
            seen.append({span.sequence for span in spans} - error.sequences)
            raise

    monkeypatch.setattr(type(part), "run", watched)
    running = _begun(engine, 8)
    starter.refuse = {2}
    starter.servers[2].cut()
    while not seen:
        engine.tick()
    starter.refuse = set()
    _there(shards)
    while engine.busy:
        engine.tick()
    went_on = [each for each in running if each.error is None]
    assert seen[0] and len(seen) == 1 and 0 < len(went_on) < len(running)
    for each, (tokens, depth, _) in zip(running, whole, strict=True):
        assert each in went_on or isinstance(each.error, Unavailable)
        assert each not in went_on or (each.tokens == tokens and each.depth == depth)


def test_a_failure_inside_a_shard_is_no_loss_of_it(
    sharded: Any, whole: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the call's, which the server takes apart; a shard that is lost beside it is still told from it."""
    bundle = sharded(HOPS, 3)
    shards, starter = shards_of(bundle)

    def full(*_: object) -> None:
        raise BackendFailed("there is no memory for so much")

    engine = engine_of(bundle, patience=1.0, shards=shards)  # all rows in one call, which needs every shard
    running = _begun(engine, 8)
    with monkeypatch.context() as patch:
        patch.setattr(starter.servers[0], "compute", full)
        with pytest.raises(BackendFailed, match="there is no memory for so much") as caught:
            while engine.busy:
                engine.tick()
        assert caught.type is BackendFailed and not any(each.error for each in running)
        starter.refuse = {2}
        starter.servers[2].cut()
        for _ in range(100):  # the cut one may still answer what it was asked before
            with pytest.raises(BackendFailed, match="there is no memory for so much"):
                while engine.busy:
                    engine.tick()
            if any(each.error for each in running):
                break
            time.sleep(0.02)
        assert {type(each.error) for each in running if each.error} == {Unavailable}
    assert shards.ready == 2 and shards.restarts == 0
    starter.refuse = set()
    _there(shards)
    assert answers(engine_of(bundle, shards=shards), requests(8)) == whole


def test_what_a_model_says_of_itself(sharded: Any, bundles: Bundles) -> None:
    """Caches and generation work as those of the whole; what needs the model as one graph says so."""
    with load(sharded(HOPS, 2), threads=1) as apart, load(bundles[HOPS], threads=1) as one:
        assert "experts in 2 shards" in apart.session.description
        with pytest.raises(RequestError, match="experts of this bundle are in shards"):
            apart.forward([[1, 2, 3]])
        logits = [model.forward([[1, 2, 3]], cache=model.new_cache(1, 8)).logits for model in (apart, one)]
        assert np.array_equal(logits[0].view(np.int32), logits[1].view(np.int32))
    with pytest.raises(BackendMissing, match="CUDA was asked for, but the experts of .* are in shards"):
        load(sharded(HOPS, 2), provider="cuda")
