"""The memory that a model's caches and generations share: what is given back, and what others notice of it."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from engines import needs_native, pool_of
from golden_bundles import Bundles
from prompts import prompts

from mythos_runtime import CapacityError, Model, RequestError, load


def test_a_fork_that_fails_leaves_nothing(in_python: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a sequence that is held, nor one that would be closed twice."""
    cache: Any = in_python.new_cache(2, 16)
    in_python.forward([[1, 2], [3, 4]], cache=cache)
    core = cache.pool.core
    fork = core.fork

    def held() -> int:
        gc.collect()
        with cache.pool.alone():
            return len(core.sequences)

    def full(sequence: Any) -> Any:
        if sequence is cache._sequences[1]:
            raise MemoryError
        return fork(sequence)

    before = held()
    with monkeypatch.context() as patch:
        patch.setattr(core, "fork", full)
        with pytest.raises(MemoryError):
            cache.fork()
    assert held() == before
    assert np.array_equal(cache.fork().read()["loop"], cache.read()["loop"])


def test_threads_with_caches_of_their_own_take_turns(model: Model) -> None:
    rows = prompts(model, [20, 17, 9, 30])

    def answer(row: int) -> np.ndarray:
        cache, logits = model.new_cache(1, 40), []
        for token in rows[row]:
            logits.append(model.forward([[token]], cache=cache).logits)
            cache.truncate(cache.lengths)
        tokens = model.generate_all([rows[row]], max_new_tokens=6).tokens[0]
        return np.append(np.concatenate(logits, 1), tokens)

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(answer, range(4)))
    assert all(np.array_equal(found, answer(row)) for row, found in enumerate(together))


def test_a_cache_that_memory_does_not_hold_costs_the_others_nothing(
    in_python: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.array(prompts(in_python, [20]))
    calm, shaken = in_python.new_cache(1, 40), in_python.new_cache(1, 40)

    def refuse(pages: int) -> None:
        raise MemoryError("no more")

    for position in range(20):
        token = ids[:, position : position + 1]
        expected = in_python.forward(token, cache=calm).logits
        if position == 10:
            with monkeypatch.context() as patch:
                patch.setattr(pool_of(in_python).core.loop, "grow", refuse)
                with pytest.raises(CapacityError, match="which this machine does not give"):
                    in_python.new_cache(50, 40)
        if position == 15:
            in_python.new_cache(50, 40)
        assert np.array_equal(in_python.forward(token, cache=shaken).logits, expected)


def test_a_generation_that_is_dropped_gives_its_pages_back(in_python: Model) -> None:
    steps = in_python.generate(prompts(in_python, [5]), max_new_tokens=4)
    next(steps)
    with pool_of(in_python).alone():
        steps.close()  # as the garbage collector may, in the middle of another call
    claimed = pool_of(in_python).claimed
    with pool_of(in_python).alone():
        assert pool_of(in_python).core.loop.held <= sum(
            len(table) for each in pool_of(in_python).core.sequences for table in each.loop
        )
    assert pool_of(in_python).claimed == claimed or pool_of(in_python).claimed.loop < claimed.loop


def test_memory_of_caches_that_are_gone_is_used_again(in_python: Model) -> None:
    for _ in range(5):
        cache = in_python.new_cache(2, 64)
        in_python.forward(prompts(in_python, [40, 40]), cache=cache)
        fork = cache.fork([1])
        fork.truncate(3)
        steps = in_python.generate(prompts(in_python, [5]), max_new_tokens=4)
        next(steps)
        del cache, fork, steps
    pages = pool_of(in_python).core.loop.pages
    in_python.new_cache(1, 1)
    assert pool_of(in_python).core.loop.pages == pages and pool_of(in_python).core.loop.held == 0
    assert not pool_of(in_python).core.sequences or all(not each.length for each in pool_of(in_python).core.sequences)


@needs_native
def test_memory_of_the_native_engine_is_used_again(bundles: Bundles) -> None:
    model = load(bundles["mla_decode"], engine="native")
    sizes = []
    for number in range(5):
        cache = model.new_cache(2, 64)
        model.forward(prompts(model, [40, 40]), cache=cache)
        fork = cache.fork([1])
        fork.truncate(3)
        steps = model.generate(prompts(model, [5]), max_new_tokens=4)
        next(steps)
        if number % 2:
            steps.close()
        del cache, fork, steps
        gc.collect()
        usage = model.engine().usage
        assert (usage.pages_free, usage.states_free, usage.running) == (usage.pages, usage.states, 0)
        sizes.append(usage.pages)
    assert len(set(sizes)) == 1


def test_a_closed_model_frees_its_engine(bundles: Bundles) -> None:
    with load(bundles["mla_decode"]) as model:
        engine = weakref.ref(model.session)
        cache = model.new_cache(1, 4)
        model.forward([[1, 2]], cache=cache)
    assert engine() is None
    assert cache.lengths.tolist() == [2]
    with pytest.raises(RequestError, match="closed; load it again"):
        model.forward([[1]])
