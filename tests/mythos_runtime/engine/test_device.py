"""The engine on row graphs in PyTorch, on the CPU in a GPU's place, held to the engine on ONNX Runtime."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from recorded import RecordedGraphs
from row_models import RowModel, forked_and_grown

from mythos_runtime.engine import Budget, Request
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.device.captures import Captures, CudaCaptures, Direct
from mythos_runtime.engine.device.graphs import DeviceGraphs
from mythos_runtime.engine.device.programs import cut
from mythos_runtime.engine.device.tail import fuse_tail
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.speculation import Speculation
from mythos_runtime.errors import BackendFailed, BundleError
from mythos_runtime.row_ports import STEP

NEAR = 2e-5  # of the largest logit
NEAR_HALF = 2e-2  # which is how far float16 is from float32
NEAR_STEPS = 2e-3  # a line's value that is near the middle of two integers may be a step off, which moves what follows

Answers = list[tuple[list[int], list[int], np.ndarray]]


def requests() -> list[Request]:
    """Prompts on both sides of a page, thresholds, limits, policies, budgets, given depths."""
    r = np.random.default_rng(3)

    def prompt(length: int) -> list[int]:
        return r.integers(0, 50, length).tolist()  # type: ignore[no-any-return]

    common = prompt(40)
    return [
        Request(prompt(3), max_new_tokens=6),
        Request(common, max_new_tokens=5, halt_threshold=0.5),
        Request(prompt(70), max_new_tokens=3, max_loops=3),
        Request(prompt(31), max_new_tokens=4, policy="full", halt_threshold=0.7),
        Request(prompt(9), max_new_tokens=6, policy="share", halt_threshold=0.5),
        Request(prompt(5), max_new_tokens=5, budget=Budget(loops_per_token=2)),
        Request(prompt(4), max_new_tokens=4, depths=(1, 3, 2)),
        Request([*common, 7], max_new_tokens=4, halt_threshold=0.5),
    ]


def answers(core: Core, **options: Any) -> Answers:
    """What the requests come to, the last one after the others have ended: it begins as the second one did."""
    engine = Engine(core, patience=0.5, prefixes=4, **options)
    every = requests()
    logits: dict[Any, list[np.ndarray]] = {}
    running = []
    for some in (every[:-1], every[-1:]):
        running += [engine.submit(request) for request in some]
        while engine.busy:
            for token in engine.tick():
                logits.setdefault(token.running, []).append(token.logits)
    assert running[-1].reused == 40
    engine.close()
    assert core.states.free == core.states.lines and core.loop.free == core.loop.pages
    return [(each.tokens, each.depth, np.stack(logits[each])) for each in running]


def hold(got: Answers, expected: Answers, near: float = NEAR) -> None:
    for (tokens, depth, logits), (true_tokens, true_depth, true_logits) in zip(got, expected, strict=True):
        assert tokens == true_tokens and depth == true_depth
        assert np.abs(logits - true_logits).max() <= near * np.abs(true_logits).max()


def test_answers_are_those_of_onnxruntime(row_model: RowModel) -> None:
    """Captured, and with nothing but the numbers of a call and what comes of it crossing."""
    recorded = RecordedGraphs()
    core = row_model.device_core(recorded)
    hold(answers(core), answers(row_model.core()))
    graphs = core.graphs
    assert isinstance(graphs, DeviceGraphs)
    assert recorded.launched == graphs.launches == graphs.uploads
    assert recorded.captured < graphs.launches * 2 / 3
    assert graphs.downloads < graphs.launches  # of enter nothing comes back


def test_over_int8_pages_answers_are_those_of_onnxruntime(int8_row_model: RowModel) -> None:
    hold(answers(int8_row_model.device_core(RecordedGraphs())), answers(int8_row_model.core()), NEAR_STEPS)


def test_in_float16_answers_are_those_of_onnxruntime(half_row_model: RowModel) -> None:
    hold(answers(half_row_model.device_core(RecordedGraphs())), answers(half_row_model.core(most_loops=1)), NEAR_HALF)


@pytest.mark.slow
@pytest.mark.parametrize("captures", [Direct, RecordedGraphs])
@pytest.mark.parametrize(
    "options",
    [{"speculation": lambda: Speculation(5, 2)}, {"chunk": lambda: 5, "most_running": lambda: 3}],
    ids=["drafts", "pieces"],
)
def test_answers_however_they_are_scheduled(
    row_model: RowModel, captures: Callable[[], Captures], options: dict[str, Callable[[], Any]]
) -> None:
    made = [{name: make() for name, make in options.items()} for _ in range(2)]
    hold(answers(row_model.device_core(captures(), rows=48), **made[0]), answers(row_model.core(rows=48), **made[1]))


def test_a_cache_forks_reads_and_grows(row_model: RowModel) -> None:
    """What `Model.forward` does with it, and memory that moves under what was captured."""
    spec = row_model.model.spec
    got, got_entries = forked_and_grown(row_model.device_core(RecordedGraphs(), lines=8), spec)
    expected, expected_entries = forked_and_grown(row_model.core(lines=8), spec)
    for (logits, depth, _), (true_logits, true_depth, _) in zip(got, expected, strict=True):
        assert np.array_equal(depth, true_depth)
        assert np.abs(logits - true_logits).max() <= NEAR * np.abs(true_logits).max()
    for name, entry in expected_entries.items():
        assert np.abs(got_entries[name] - entry).max() <= NEAR * np.abs(entry).max()


def test_what_is_the_same_in_every_call_is_computed_once(row_model: RowModel) -> None:
    """Tables of depths, weights in another type: in every call they would be launches."""
    step = row_model.programs[STEP]
    targets = [str(node.target) for node in step.graph.nodes if node.op == "call_function"]
    assert "aten.sin.default" not in targets and "aten.arange.default" not in targets
    assert any(target.endswith("_attention_.default") for target in targets)  # which writes into the cache


def test_the_end_of_an_iteration_is_one_operator(row_model: RowModel) -> None:
    """In place of just those operators; where one is another, the graph stays as it is."""
    graphs, module = row_model.model.spec.graphs, row_model.captured.program.module()
    apart, fused = (cut(module, graphs, fused=way)[STEP] for way in (False, True))
    calls = [[str(node.target) for node in step.graph.nodes if node.op == "call_function"] for step in (apart, fused)]
    assert "mythos.act_halting.default" in calls[0] and "mythos.loop_tail.default" not in calls[0]
    assert "mythos.act_halting.default" not in calls[1] and "aten.matmul.default" not in calls[1]
    assert calls[1].count("mythos.loop_tail.default") == 1 and len(calls[1]) == len(calls[0]) - 9
    (matmul,) = [node for node in apart.graph.nodes if str(node.target) == "aten.matmul.default"]
    matmul.target = torch.ops.aten.mm.default
    assert not fuse_tail(apart)
    matmul.target = torch.ops.aten.matmul.default
    matmul.kwargs = {"alpha": 2}
    assert not fuse_tail(apart)
    matmul.kwargs = {}
    assert fuse_tail(apart) and not fuse_tail(apart)


def test_a_program_with_other_ports_is_refused(row_model: RowModel) -> None:
    graphs = row_model.model.spec.graphs
    module = row_model.captured.program.module()
    with pytest.raises(BundleError, match=r"rows.pt2 has 24 inputs and 10 outputs, expected 19 and 9"):
        cut(module, {**graphs, STEP: graphs["model"]})


def test_a_call_that_fails_names_the_way_around(row_model: RowModel) -> None:
    class Refusing:
        def capture(self, work: Callable[[], None]) -> Callable[[], None]:
            raise RuntimeError("operation not permitted when stream is capturing")

    core = row_model.device_core(Refusing())
    engine = Engine(core)
    engine.submit(Request([1], max_new_tokens=1))
    with pytest.raises(BackendFailed, match="not permitted when stream is capturing .*MYTHOS_ROW_GRAPHS=0"):
        engine.tick()
    assert torch.isnan(core.loop.memory).all()  # nothing was written


def test_a_capture_is_warmed_up_and_in_one_pool() -> None:
    """What PyTorch is asked for on a GPU, in its order."""
    noted: list[str] = []

    @contextlib.contextmanager
    def inside(name: str, **options: Any) -> Iterator[None]:
        noted.append(f"{name} {options}" if options else name)
        yield
        noted.append(f"end of {name}")

    def stream(name: str) -> Any:
        return SimpleNamespace(wait_stream=lambda other: noted.append(f"{name} waits"))

    own, current = stream("own"), stream("current")
    cuda = SimpleNamespace(
        Stream=lambda: own,
        current_stream=lambda: current,
        graph_pool_handle=lambda: "pool",
        stream=lambda stream: inside("stream"),
        CUDAGraph=lambda: SimpleNamespace(replay=lambda: noted.append("replay")),
        graph=lambda graph, stream, **options: inside("graph", **options),
    )
    launch = CudaCaptures(SimpleNamespace(cuda=cuda)).capture(lambda: noted.append("work"))
    launch()
    options = {"pool": "pool", "capture_error_mode": "thread_local"}
    assert noted == [
        *("own waits", "stream", "work", "work", "end of stream", "current waits"),
        *(f"graph {options}", "work", "end of graph"),
        "replay",
    ]
