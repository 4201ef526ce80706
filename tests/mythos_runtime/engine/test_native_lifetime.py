"""The C++ runtime's engine in Python, and models on it, as they are shared, left half done and closed."""

from __future__ import annotations

import contextlib
import gc
import threading

import numpy as np
import pytest
from engines import ENGINES, needs_native
from golden_bundles import Bundles

from mythos_runtime import Model, load
from mythos_runtime.engine import AnyEngine, Request, Token, open_engine
from mythos_runtime.engine.native import NativeEngine
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.request import CANCELLED
from mythos_runtime.errors import RequestError
from mythos_runtime.session import EngineChoice, Options

pytestmark = needs_native


def test_logits_outlive_their_engine(bundles: Bundles) -> None:
    engine = open_engine(bundles["mla_decode"], EngineOptions(memory=4 << 20), options=Options(engine="native"))
    engine.submit(Request([1, 2, 3], 4))
    tokens: list[Token] = []
    while engine.busy:
        tokens += engine.tick()
    kept = [token.logits.copy() for token in tokens]
    engine.close()
    del engine
    gc.collect()
    assert all(np.array_equal(token.logits, copy) for token, copy in zip(tokens, kept, strict=True))
    assert all(token.logits.argmax() == token.id for token in tokens)


def test_one_that_was_closed(bundles: Bundles) -> None:
    engine = open_engine(bundles["mla_decode"], EngineOptions(memory=4 << 20), options=Options(engine="native"))
    running = engine.submit(Request([1], 4))
    engine.close()
    engine.close()
    assert running.finished == CANCELLED and not engine.busy
    engine.cancel(running)
    for work in (engine.tick, lambda: engine.submit(Request([1], 1)), lambda: engine.usage):
        with pytest.raises(RequestError, match="was closed"):
            work()


def test_closing_while_another_thread_ticks(bundles: Bundles) -> None:
    for _ in range(20):
        engine = open_engine(
            bundles["mla_decode"], EngineOptions(memory=4 << 20), options=Options(threads=1, engine="native")
        )
        engine.submit(Request([1, 2, 3], 40))
        ended = threading.Event()

        def work(engine: AnyEngine = engine, ended: threading.Event = ended) -> None:
            with contextlib.suppress(RequestError):
                while True:
                    engine.tick()
            ended.set()

        thread = threading.Thread(target=work)
        thread.start()
        engine.close()
        thread.join(30)
        assert ended.is_set() and not engine.busy


def generated(model: Model, prompt: list[int]) -> list[list[int]]:
    return model.generate_all([prompt, prompt[::-1]], max_new_tokens=12).tokens


def test_generations_on_one_model_take_turns(bundles: Bundles) -> None:
    """Threads with generations of their own, and one that is left half done."""
    model = load(bundles["mla_decode"], threads=1, engine="native")
    prompts = [[n + 1, n + 2, n + 3] for n in range(4)]
    with load(bundles["mla_decode"], threads=1, engine="python") as of_python:
        expected = [generated(of_python, prompt) for prompt in prompts]
    left = model.generate([prompts[0]], max_new_tokens=12)
    next(left)
    found: dict[int, list[list[int]]] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: generated(model, prompts[n])}))
        for n in range(len(prompts))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(4)] == expected
    usage = model.engine().usage
    assert usage.pages_free < usage.pages
    del left
    gc.collect()
    usage = model.engine().usage
    assert usage.pages_free == usage.pages and usage.states_free == usage.states


def test_a_model_may_be_closed_before_its_engines(bundles: Bundles) -> None:
    model = load(bundles["mla_decode"], engine="native")
    engine = model.engine()
    assert isinstance(engine, NativeEngine)
    running = engine.submit(Request([1, 2], 3))
    model.close()
    del model
    gc.collect()
    while engine.busy:
        engine.tick()
    assert len(running.tokens) == 3


@pytest.mark.parametrize("kind", ENGINES)
def test_an_engine_on_a_model_claims_what_runs_alone(bundles: Bundles, kind: EngineChoice) -> None:
    """What is refused, ends or is closed leaves nothing behind."""
    model = load(bundles["mla_decode"], threads=1, engine=kind)
    engine = model.engine(EngineOptions(most_running=2))

    def finish() -> None:
        while engine.busy:
            engine.tick()

    engine.submit(Request([1, 2, 3], 4))
    finish()
    pages = engine.usage.pages
    for _ in range(8):
        engine.submit(Request([1, 2, 3], 4))
        finish()
        for wrong in (Request([1, 2], 1 << 40), Request([1], -5000), Request([1], 2, max_loops=10**7)):
            with pytest.raises(RequestError):
                engine.submit(wrong)
    assert engine.usage.pages == engine.usage.pages_free == pages
    cancelled, closed = engine.submit(Request([1, 2], 8)), engine.submit(Request([1, 2], 8))
    engine.tick()
    engine.cancel(cancelled)
    engine.close()
    engine.close()
    assert [cancelled.finished, closed.finished] == [CANCELLED, CANCELLED] and not engine.busy
    for call in (engine.tick, lambda: engine.usage, lambda: engine.submit(Request([1], 1))):
        with pytest.raises(RequestError, match="was closed"):
            call()
    dropped = model.engine()
    dropped.submit(Request([1, 2], 8))
    dropped.tick()
    del dropped
    gc.collect()
    assert model.generate_all([[1, 2, 3]], max_new_tokens=4).tokens  # on what they gave back
    usage = model.engine().usage
    assert usage.pages == usage.pages_free and usage.states == usage.states_free
    model.close()
    with pytest.raises(RequestError, match="model was closed"):
        model.engine()


@pytest.mark.parametrize("kind", ENGINES)
def test_a_chunk_is_as_long_on_a_model_that_is_new(bundles: Bundles, kind: EngineChoice) -> None:
    engine = load(bundles["mla_decode"], threads=1, engine=kind).engine(EngineOptions(chunk=256))
    engine.submit(Request(list(range(60)), 1, policy="full"))
    ticks = 0
    while engine.busy:
        engine.tick()
        ticks += 1
    assert ticks <= 7, "its loops, and a tick to leave"
