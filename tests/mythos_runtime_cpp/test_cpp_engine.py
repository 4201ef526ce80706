"""The engine in C++ does what the one in Python does: every call of a graph with the same rows, every bit the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_families import GOLDEN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from row_models import POSITIONS, VOCABULARY, RowModel
from schedules import LINES, SCHEDULE, CppEngine, PythonEngine, serving
from test_exact import some_requests

from mythos_model import load_checkpoint
from mythos_runtime.engine.request import Budget, Request
from mythos_runtime.line_ports import rows_on_lines
from mythos_runtime.op_library import find_op_library
from mythos_runtime.sampling import SamplingOptions

pytestmark = pytest.mark.skipif(not SCHEDULE.is_file(), reason="the C++ runtime is not built: make native")

Engines = tuple[CppEngine, PythonEngine]


@pytest.fixture(scope="module", params=["mla", "gqa"])
def row_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RowModel:
    if find_op_library() is None:
        pytest.skip("the native operators are not built: make native")
    return RowModel.openmythos(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(
    scope="module", params=[(1, False), (2, False), (1, True)], ids=["1 thread", "2 threads", "in a device's place"]
)
def engines(request: pytest.FixtureRequest, row_model: RowModel) -> Iterator[Engines]:
    threads, device = request.param
    cpp = CppEngine(row_model.folder, row_model.model.spec, threads, device)
    yield cpp, PythonEngine(row_model.core(threads=threads, most_loops=1 if device else 16))
    cpp.close()


def same(engines: Engines, schedule: dict[str, Any]) -> dict[str, Any]:
    """What came of a schedule in C++, which is what comes of it in Python."""
    found, expected = (engine.run(schedule) for engine in engines)
    assert found["trace"] == expected["trace"]
    assert found == expected
    assert found["idle"]
    return found


def test_any_schedule(engines: Engines) -> None:
    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data())
    def check(data: Any) -> None:
        draw = data.draw
        requests = draw(some_requests())
        same(
            engines,
            serving(
                requests,
                [draw(st.sampled_from([0, 0, 1, 7, 40])) for _ in requests],
                cancels=draw(
                    st.lists(st.tuples(st.integers(0, len(requests) - 1), st.integers(0, 60)).map(list), max_size=2)
                ),
                taken=draw(st.sampled_from([0, 90, 135])),
                taken_states=draw(st.sampled_from([0, 290, 330])),
                max_lag=draw(st.sampled_from([None, None, 1, 6, 30])),
                scheduler_rows=draw(st.sampled_from([64, 64, 9, 1])),
                most_running=draw(st.sampled_from([8, 3, 1])),
                chunk=draw(st.sampled_from([64, 20, 5, 1])),
                patience=draw(st.sampled_from([0.0, 0.2, 1.0])),
                loops_per_call=draw(st.sampled_from([16, 16, 2, 1])),
                prefixes=draw(st.sampled_from([0, 0, 1, 3])),
                speculate=draw(st.sampled_from([None, None, 1, 2, 4])),
                drafts=draw(st.integers(1, 5)),
            ),
        )

    check()


@pytest.mark.slow  # row graphs of two more models
@pytest.mark.parametrize("attention", ["mla", "gqa"])
def test_int8_pages(attention: str, tmp_path: Path) -> None:
    if find_op_library() is None:
        pytest.skip("the native operators are not built: make native")
    made = RowModel.openmythos(attention, tmp_path, int8_cache=True)
    for threads, device, loops in ((2, False, 16), (1, True, 1)):
        cpp = CppEngine(made.folder, made.model.spec, threads, device)
        test_requests_that_were_sent_back((cpp, PythonEngine(made.core(threads=threads, most_loops=loops))))
        cpp.close()


def test_a_call_on_a_device_is_one_of_onnx_runtime(row_model: RowModel) -> None:
    """It takes every number of the call there, and brings who has halted, or the logits, back; where nothing is forked
    or shared nothing else is called."""
    spec, (alone,) = row_model.model.spec, [Request((3, 4, 5, 6), max_new_tokens=6, max_loops=5, halt_threshold=0.7)]
    cpp = CppEngine(row_model.folder, spec, 1, device=True)
    found = cpp.run(serving([alone], [0]))
    cpp.close()
    ran = [call[0] for call in found["trace"] if isinstance(call, list)]
    numbers = {
        graph: sum(port.role not in ("pool", "cache") for port in ports.inputs)
        for graph, ports in rows_on_lines(spec).items()
    }
    assert ran.count("step") > ran.count("leave") > 1
    assert cpp.crossed == (len(ran), sum(numbers[graph] for graph in ran), ran.count("step") + ran.count("leave"))


def test_float16_pages(tmp_path: Path) -> None:
    """In a device's place; there is no step in a Loop."""
    if find_op_library() is None:
        pytest.skip("the native operators are not built: make native")
    made = RowModel.openmythos("gqa", tmp_path, dtype=torch.float16)
    cpp = CppEngine(made.folder, made.model.spec, 1, True)
    test_requests_that_were_sent_back((cpp, PythonEngine(made.core(most_loops=1))))
    cpp.close()


def test_requests_that_were_sent_back(engines: Engines) -> None:
    prompts = np.random.default_rng(0).integers(0, VOCABULARY, (6, 60)).tolist()
    requests = [
        Request(tuple(prompt), max_new_tokens=9, max_loops=5, halt_threshold=0.7, row=row)
        for row, prompt in enumerate(prompts)
    ]
    tight = {"taken": 135, "max_lag": 6, "scheduler_rows": 9, "most_running": 8, "patience": 0.0}
    found = same(engines, serving(requests, [0, 1, 1, 1, 1, 40], **tight))
    roomy = same(engines, serving(requests, [0, 0, 0, 0, 0, 0]))
    assert found["requests"] == roomy["requests"]
    entered = [
        span
        for graph, spans in (call for call in found["trace"] if isinstance(call, list))
        for span in spans
        if graph == "enter" and span[2] == 0
    ]
    assert len(entered) > len(requests), "nobody was sent back"


def test_wrong_logits_end_their_request_alone(engines: Engines) -> None:
    requests = [Request((3, 4), max_new_tokens=5, row=row) for row in range(2)]
    good, bad = same(engines, serving(requests, [0, 0], broken=1))["requests"]
    assert good["finished"] == "length" and len(good["tokens"]) == 5
    assert bad["finished"] == "error" and "nan" in bad["error"] and not bad["tokens"]


def test_sampling_and_ends(engines: Engines) -> None:
    options = SamplingOptions(temperature=1.5, seed=11)
    prompts = [tuple(np.random.default_rng(row).integers(0, VOCABULARY, 7).tolist()) for row in range(4)]
    free = [Request(prompt, max_new_tokens=20, sampling=options, row=row) for row, prompt in enumerate(prompts)]
    tokens = [each["tokens"] for each in same(engines, serving(free, [0, 0, 3, 3]))["requests"]]
    ends = [
        Request(prompts[0], max_new_tokens=20, sampling=options, row=0, eos=frozenset([tokens[0][5]])),
        Request(prompts[1], max_new_tokens=20, sampling=options, row=1, stop=(tuple(tokens[1][3:6]), (99,))),
    ]
    found = same(engines, serving(ends, [0, 0]))["requests"]
    assert [each["finished"] for each in found] == ["eos", "stop"]


def test_depths_that_are_given_and_budgets(engines: Engines) -> None:
    given = Request((3, 4), max_new_tokens=8, row=0, depths=(1, 2, 5, 1, 3))
    tight = Request((5, 6, 7), max_new_tokens=12, row=1, budget=Budget(loops_per_token=2.5))
    free = Request((5, 6, 7), max_new_tokens=12, row=1)
    found = same(engines, serving([given, tight, free], [0, 0, 2]))["requests"]
    assert found[0]["depth"][:5] == [1, 2, 5, 1, 3]
    assert any(found[1]["capped"]) and sum(found[1]["depth"]) <= 2.5 * 12 < sum(found[2]["depth"])


def test_drafts_change_nothing(engines: Engines) -> None:
    sampling = SamplingOptions(temperature=0.8, seed=5)
    requests = [
        Request((3, 4, row), max_new_tokens=30, row=row, sampling=sampling if row % 2 else SamplingOptions())
        for row in range(4)
    ]
    plain_run = same(engines, serving(requests, [0, 0, 0, 5]))
    drafted = same(engines, serving(requests, [0, 0, 0, 5], speculate=2, drafts=4))
    assert drafted["requests"] == plain_run["requests"]
    offered, right = drafted["drafts"]
    assert 0 < right < offered


def test_prompts_that_begin_alike(engines: Engines) -> None:
    common = tuple(np.random.default_rng(4).integers(0, VOCABULARY, 70).tolist())
    first = Request(common, max_new_tokens=4)
    second = Request((*common[:50], 1, 2, 3), max_new_tokens=20)
    found = same(engines, serving([first, second], [0, 200], prefixes=2))["requests"]
    assert [each["reused"] for each in found] == [0, 50]
    fresh = same(engines, serving([second], [0]))["requests"][0]
    assert {**found[1], "reused": 0} == fresh


def test_sequences_at_the_core(engines: Engines) -> None:
    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data())
    def check(data: Any) -> None:
        same(engines, {"acts": data.draw(some_acts())})

    check()


@pytest.mark.slow
def test_positions_near_a_million(tmp_path: Path) -> None:
    """The past is there at the price of a page: `row_models.fill_far`."""
    row_model = RowModel.openmythos("gqa", tmp_path, far=True)
    cpp = CppEngine(row_model.folder, row_model.model.spec, 1)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, 40).tolist()
    acts = [
        {"act": "open", "limit": 2, "threshold": 0.7},
        {"act": "past", "sequence": 0, "length": 999_968},
        {"act": "feed", "chunks": [[0, ids]]},
        {"act": "fork", "sequence": 0},
        {"act": "feed", "chunks": [[0, ids[:3]], [1, ids[3:9]]]},
        {"act": "truncate", "sequence": 0, "length": 999_970},
        {"act": "feed", "chunks": [[0, ids[2:9]]]},
    ]
    found = same((cpp, PythonEngine(row_model.core())), {"acts": acts})
    cpp.close()
    assert found["answers"][3]["logits"] == found["answers"][0]["logits"][2 * VOCABULARY : 9 * VOCABULARY]


@st.composite
def some_acts(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Sequences that are fed, forked, cut and closed."""
    acts: list[dict[str, Any]] = [{"act": "open", "limit": 5, "threshold": draw(st.sampled_from([0.7, 0.99]))}]
    length = {0: 0}
    made = 1
    for _ in range(draw(st.integers(1, 12))):
        act = draw(st.sampled_from(["feed", "feed", "fork", "truncate", "close"]))
        sequence = draw(st.sampled_from(sorted(length)))
        if act == "feed":
            chunks = []
            for each in sorted({sequence, draw(st.sampled_from(sorted(length)))}):
                count = min(draw(st.sampled_from([1, 2, 20, 31])), POSITIONS - length[each])
                ids = np.random.default_rng(draw(st.integers(0, 3))).integers(0, VOCABULARY, count).tolist()
                if ids:
                    chunks.append([each, ids])
                    length[each] += count
            if chunks:
                acts.append({"act": "feed", "chunks": chunks})
        elif act == "fork" and len(length) < 4:
            acts.append({"act": "fork", "sequence": sequence})
            length[made] = length[sequence]
            made += 1
        elif act == "truncate":
            length[sequence] = draw(st.integers(0, length[sequence]))
            acts.append({"act": "truncate", "sequence": sequence, "length": length[sequence]})
        elif act == "close" and len(length) > 1:
            acts.append({"act": "close", "sequence": sequence})
            del length[sequence]
    return acts


@pytest.mark.parametrize(("name", "exit_rule"), [("ouro_decode", None), ("huginn_decode", "latent-diff")])
def test_other_families(name: str, exit_rule: str | None, tmp_path: Path) -> None:
    """Of other states, exit rules and knobs; Huginn's first state is drawn."""
    if find_op_library() is None:
        pytest.skip("the native operators are not built: make native")
    checkpoint = load_checkpoint(GOLDEN / name, exit_rule=exit_rule)
    row_model = RowModel.of(checkpoint.model(torch.float32), tmp_path)
    spec = row_model.model.spec
    cpp = CppEngine(tmp_path, spec, 1)
    knob = spec.exit.knob("halt_threshold")
    requests = [
        Request(
            tuple(np.random.default_rng(row).integers(0, spec.vocab_size, 5 + 9 * row).tolist()),
            max_new_tokens=12,
            max_loops=spec.trained_loops + row % 2,
            halt_threshold=None if knob is None or row else knob.default / 2,
            row=row,
            state_seed=row // 2,
        )
        for row in range(4)
    ]
    engines = cpp, PythonEngine(row_model.core())
    found = same(engines, serving(requests, [0, 0, 2, 9], chunk=6, max_lag=8))
    cpp.close()
    assert {each["finished"] for each in found["requests"]} == {"length"}
    assert len({depth for each in found["requests"] for depth in each["depth"]}) > 1, "every token took the same loops"


def test_states_that_are_short(tmp_path: Path) -> None:
    """Of kept prompts that lag whole, as without layers behind the loop; forks, prompts and drafts want states."""
    if find_op_library() is None:
        pytest.skip("the native operators are not built: make native")
    row_model = RowModel.of(load_checkpoint(GOLDEN / "ouro_decode").model(torch.float32), tmp_path)
    cpp = CppEngine(tmp_path, row_model.model.spec, 1)
    first, other = np.random.default_rng(0).integers(0, VOCABULARY, (2, 45)).tolist()
    prompts = [first, other, [*first[:34], *other[:6]], other[:3], [*other[:33], *first[:9]]]
    requests = [
        Request(tuple(prompt), max_new_tokens=1 if row < 2 else 14, halt_threshold=1e-6, row=row)
        for row, prompt in enumerate(prompts)
    ]
    engines, arrivals = (cpp, PythonEngine(row_model.core())), [0, 30, 60, 60, 61]
    roomy = same(engines, serving(requests, arrivals, prefixes=3))["requests"]
    for states, speculate in ((100, None), (60, None), (60, 2), (20, 2)):
        tight = {"taken_states": LINES - states, "prefixes": 3, "speculate": speculate, "drafts": 4}
        found = same(engines, serving(requests, arrivals, **tight))["requests"]
        assert [each["tokens"] for each in found] == [each["tokens"] for each in roomy]
    cpp.close()
