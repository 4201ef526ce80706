"""The C++ runtime's engine in Python gives what Python's gives: tokens, depths, logits and errors."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace
from pathlib import Path

import pytest
from engines import ENGINES, needs_native
from golden_bundles import Bundles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mythos_runtime import load
from mythos_runtime.engine import AnyEngine, Budget, Request, Running, open_engine
from mythos_runtime.engine.native import NativeEngine, structs
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.errors import CapacityError, RequestError, ResultError
from mythos_runtime.sampling import SamplingOptions
from mythos_runtime.session import EngineChoice, Options

pytestmark = needs_native
MODELS = ("mla_decode", "gqa_decode")
KINDS: tuple[EngineChoice, ...] = ("python", "native")
_opened: dict[tuple[str, str], AnyEngine] = {}


def engine_of(bundles: Bundles, name: str, kind: EngineChoice) -> AnyEngine:
    """One for all examples, which leave nothing behind."""
    key = (name, kind)
    if key not in _opened:
        options = Options(threads=1, engine=kind)
        _opened[key] = open_engine(
            bundles[name], EngineOptions(memory=8 << 20, max_loops=6, speculate=2), options=options
        )
    return _opened[key]


def answers(engine: AnyEngine, requests: list[Request], cancelled: dict[int, int]) -> list[tuple[object, ...]]:
    """What each request got, to the bit; some are cancelled behind so many tokens."""
    running = [engine.submit(request) for request in requests]
    logits: dict[Running, bytes] = dict.fromkeys(running, b"")
    while engine.busy:
        for token in engine.tick():
            assert token.id in token.running.tokens and token.depth in token.running.depth
            logits[token.running] += token.logits.tobytes()
        for number, most in cancelled.items():
            if running[number].finished is None and len(running[number].tokens) >= most:
                engine.cancel(running[number])
    found = []
    for number, each in enumerate(running):
        if number in cancelled:  # how much further it came, even to its end, is the schedule's
            most = cancelled[number]
            found.append((each.tokens[:most], each.depth[:most]))
        else:
            found.append((each.tokens, each.depth, each.capped, each.finished, logits[each]))
    return found


SAMPLING = st.builds(
    SamplingOptions,
    temperature=st.sampled_from([0.0, 0.7, 1.3]),
    top_k=st.sampled_from([0, 5]),
    top_p=st.sampled_from([1.0, 0.9]),
    min_p=st.sampled_from([0.0, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 1.2]),
    seed=st.integers(0, (1 << 64) - 1),
)

REQUESTS = st.builds(
    Request,
    prompt=st.lists(st.integers(0, 90), min_size=1, max_size=12),
    max_new_tokens=st.integers(1, 12),
    max_loops=st.sampled_from([None, 1, 3, 6]),
    halt_threshold=st.sampled_from([None, 0.5, math.inf, -math.inf]),
    policy=st.sampled_from(["lazy", "full", "share"]),
    sampling=SAMPLING,
    eos=st.frozensets(st.integers(0, 90), max_size=8),
    stop=st.lists(st.lists(st.integers(0, 90), min_size=1, max_size=2).map(tuple), max_size=3).map(tuple),
    row=st.integers(0, 3),
    budget=st.sampled_from([None, Budget(), Budget(loops_per_token=2.0)]),
    depths=st.sampled_from([(), (1, 1, 1)]),
)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(REQUESTS, min_size=1, max_size=5), cancel=st.sampled_from([{}, {0: 2}]))
def test_whatever_is_asked_for_is_answered_as_by_python(
    bundles: Bundles, name: str, requests: list[Request], cancel: dict[int, int]
) -> None:
    of_python, native = (answers(engine_of(bundles, name, kind), requests, cancel) for kind in KINDS)
    assert native == of_python
    usage = engine_of(bundles, name, "native").usage
    assert usage.pages_free == usage.pages and usage.states_free == usage.states and usage.running == 0


def test_what_it_holds_is_what_pythons_holds(bundles: Bundles) -> None:
    found = []
    for kind in KINDS:
        options = Options(threads=1, engine=kind)
        engine = open_engine(
            bundles["mla_decode"], EngineOptions(memory=4 << 20, prefixes=2, loops_per_call=1), options=options
        )
        first = engine.submit(Request(list(range(40)), 3))
        while engine.busy:
            engine.tick()
        second = engine.submit(Request([*range(40), 50], 3))
        waiting = engine.usage
        while not second.tokens:
            engine.tick()
        found.append((waiting, engine.usage, engine.pages_running, first.tokens, second.tokens, second.reused))
        while engine.busy:
            engine.tick()
    assert found[0] == found[1]
    assert found[0][0].waiting == 1 and found[0][1].prefixes == 1 and found[0][-1] == 40


def test_refusals_are_pythons(bundles: Bundles) -> None:
    wrong = [
        Request([], 1),
        Request([9999], 1),
        Request([1], 0),
        Request([1], 1, max_loops=-1),
        Request([1], 1, halt_threshold=math.nan),
        Request([1], 1, policy="last"),  # type: ignore[arg-type]
        Request([1], 1 << 40),
        Request([1], 60, max_loops=250),
        Request([1], 2, budget=Budget(loops_per_token=0.0)),
        Request([1], 2, depths=(0,)),
        Request([1], 2, stop=((),)),
    ]
    said: list[list[tuple[type, str]]] = []
    for kind in KINDS:
        engine = open_engine(bundles["mla_decode"], EngineOptions(memory=1 << 20), options=Options(engine=kind))
        errors = []
        for request in wrong:
            with pytest.raises(RequestError) as error:
                engine.submit(request)
            errors.append((error.type, str(error.value)))
        assert not engine.busy
        said.append(errors)
    assert said[0] == said[1]
    assert {kind for kind, _ in said[1]} == {RequestError, CapacityError}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"memory": 8}, "hold no page"),
        ({"memory": 0}, "memory|hold no page"),
        ({"most_running": 0}, "most_running"),
        ({"speculate": 0}, "speculate"),
        ({"speculate": "on"}, "speculate"),
        ({"max_lag": 0}, "max_lag"),
        ({"loops_per_call": 0}, "loops_per_call"),
        ({"patience": math.nan}, "patience"),
        ({"max_loops": 9999}, "1 to 256 loops"),
        ({"max_loops": 0}, "1 to 256 loops"),
        ({"budget": Budget(latency_ms=-1.0)}, "latency_ms"),
    ],
)
@pytest.mark.parametrize("kind", ENGINES)
def test_what_no_engine_is_opened_with(
    bundles: Bundles, options: dict[str, object], text: str, kind: EngineChoice
) -> None:
    with pytest.raises(RequestError, match=text):
        open_engine(bundles["mla_decode"], EngineOptions(**options), options=Options(engine=kind))  # type: ignore[arg-type]


def test_no_loops_at_all(bundles: Bundles) -> None:
    """Which replays a depth of 0."""
    request = Request([1, 2], 4, max_loops=0, depths=(0,))
    found = [answers(engine_of(bundles, "mla_decode", kind), [request], {}) for kind in KINDS]
    assert found[0] == found[1] and found[0][0][1] == [0, 0, 0, 0]


def test_numbers_that_c_does_not_hold(bundles: Bundles) -> None:
    engine = engine_of(bundles, "mla_decode", "native")
    most = (1 << 80) + 3  # whose low bits are a token
    wide = SamplingOptions(top_k=most)
    plain = Request([1, 2], 6)
    huge = replace(plain, eos=frozenset([most]), stop=((most,),), sampling=wide)
    of_plain, of_huge = answers(engine, [plain, huge], {})
    assert of_plain == of_huge
    with pytest.raises(RequestError, match="row"):
        engine.submit(replace(plain, row=most))
    model = load(bundles["mla_decode"], engine="native")
    for each in (engine, model.engine()):
        for tokens in ((1 << 63) - 1, most):
            with pytest.raises(CapacityError, match="exceeds the 64"):
                each.submit(Request([1, 2, 3], tokens))
    with pytest.raises(RequestError, match="at most 256 loop depths"):
        model.new_cache(1, 8, max_loops=(1 << 64) + 2)


def test_a_bundle_that_is_damaged(bundles: Bundles, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"manifest\.json") as error:
        open_engine(tmp_path, options=Options(engine="native"))
    assert error.type.__name__ == "BundleError"


def test_an_error_of_one_request_is_its_own(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told as the C interface tells it, since nothing here makes the engine give NaN."""
    engine = open_engine(bundles["mla_decode"], EngineOptions(memory=4 << 20), options=Options(engine="native"))
    assert isinstance(engine, NativeEngine)
    running = engine.submit(Request([1], 4))
    told = (structs.Token * 1)(structs.Token(0, -1, 0, 0, 0, None, b"error", b"the logits hold NaN"))
    tick = structs.Tick(1, told)

    def failing(_: object, found: object) -> int:
        ctypes.cast(found, ctypes.POINTER(ctypes.POINTER(structs.Tick)))[0] = ctypes.pointer(tick)
        return 0

    class Failing:
        mythos_engine_tick = staticmethod(failing)
        mythos_tick_free = staticmethod(lambda _: None)

    monkeypatch.setattr(engine, "_library", Failing())
    assert engine.tick() == [] and running.finished == "error" and not engine.busy
    assert isinstance(running.error, ResultError) and "NaN" in str(running.error)
