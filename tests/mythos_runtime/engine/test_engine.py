"""Requests: what is refused, what a full memory does, and an engine opened on a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_bundles import Bundles
from row_models import RowModel
from test_exact import core_of, idle, serve

from mythos_runtime import BundleError, CapacityError, RequestError, load
from mythos_runtime.engine import Request, open_engine
from mythos_runtime.engine.chunks import Chunk
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.memory import Memory
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.pages import OutOfPages, PagedCache, Table
from mythos_runtime.engine.part import MOST_LOOPS_OF_CALL, Frame
from mythos_runtime.engine.speculation import Speed
from mythos_runtime.errors import BackendFailed
from mythos_runtime.manifest import read_manifest
from mythos_runtime.row_ports import LEAVE, LOOPS_FILE, PAGE, STEP
from mythos_runtime.session import Options


def test_requests_that_do_not_fit_are_refused(row_model: RowModel) -> None:
    engine = Engine(core_of(row_model, 1))
    with pytest.raises(CapacityError, match="97 positions exceeds the 96 that this model takes"):
        engine.submit(Request(range(40), max_new_tokens=58))
    with pytest.raises(CapacityError, match="60 loops does not fit the engine's memory by itself"):
        engine.submit(Request([1], max_new_tokens=80, max_loops=60))
    with pytest.raises(RequestError, match="max_loops"):
        engine.submit(Request([1], max_new_tokens=1, max_loops=257))
    with pytest.raises(RequestError, match="50"):
        engine.submit(Request([50], max_new_tokens=1))
    assert not engine.busy


def test_pages_are_shared_until_somebody_writes() -> None:
    cache = PagedCache(1, 4, 2, np.dtype(np.float32))
    table = Table()
    cache.extend(table, 0, PAGE)  # two pages
    cache.memory[:, table[1], 0] = 7
    twin = cache.fork(table, PAGE + 1)
    cache.extend(twin, PAGE + 1, PAGE + 1)
    assert twin[0] == table[0] and twin[1] != table[1]
    assert (cache.memory[:, twin[1], 0] == 7).all()
    cache.truncate(table, 0)
    assert cache.free == 2 and not len(table)
    with pytest.raises(OutOfPages):
        cache.extend(twin, 2 * PAGE, 5 * PAGE)
    assert len(twin) == 2 and cache.free == 2
    cache.truncate(twin, 1)
    assert cache.free == 3 and cache.peak == 3


def test_an_engine_over_a_bundle_generates_what_the_model_does(bundles: Bundles) -> None:
    path = bundles["gqa_decode"]
    prompts = [[5, 6, 7, 8, 9], list(range(1, 40)), [11]]
    expected = load(path).generate_all(prompts, max_new_tokens=12)
    engine = open_engine(path, EngineOptions(memory=1 << 22))
    running = [engine.submit(Request(prompt, max_new_tokens=12)) for prompt in prompts]
    while engine.busy:
        engine.tick()
    assert [each.tokens for each in running] == expected.tokens
    assert [each.depth for each in running] == expected.depth
    loops = read_manifest(path, verify_hashes=False).spec.trained_loops
    assert engine.usage.rows < sum(len(prompt) + 11 for prompt in prompts) * loops


def test_without_operators_of_ours_or_without_its_graph_a_call_is_a_loop(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle of before, and the portable bodies, which write into no page that they are given."""
    path, prompts = bundles["mla_prefill"], [[5, 6, 7, 8, 9], [11]]
    requests = [Request(tuple(prompt), max_new_tokens=9, halt_threshold=0.7) for prompt in prompts]

    def run(bundle: Path) -> tuple[int, list[list[int]], list[list[int]]]:
        engine = open_engine(bundle, EngineOptions(memory=1 << 22), options=Options(engine="python"))
        assert isinstance(engine, Engine)
        running = [engine.submit(request) for request in requests]
        while engine.busy:
            engine.tick()
        return engine.core.graphs.most_loops, [each.tokens for each in running], [each.depth for each in running]

    most, *expected = run(path)
    assert most == MOST_LOOPS_OF_CALL
    before = shutil.copytree(path, tmp_path / "before")
    manifest = json.loads((before / "manifest.json").read_text())
    (before / LOOPS_FILE).unlink()
    del manifest["files"][LOOPS_FILE]
    manifest["targets"][0]["files"].remove(LOOPS_FILE)
    (before / "manifest.json").write_text(json.dumps(manifest))
    assert run(before) == (1, *expected)
    monkeypatch.setenv("MYTHOS_OP_LIBRARY", "none")
    assert run(path) == (1, *expected)


def test_a_graph_that_cannot_have_run_as_it_says_is_refused(row_model: RowModel) -> None:
    core = row_model.core()
    part = core.graphs._parts["step"]  # type: ignore[attr-defined]
    sound, said = part.run, 0

    def run(frame: Frame, spans: Any, tables: Any) -> None:
        sound(frame, spans, tables)
        frame["ran"][...] = said

    part.run = run
    for said in (0, 17):
        sequence = core.open(5, 0.7)
        core.enter([Chunk(sequence, np.array([1, 2]))])
        with pytest.raises(
            BackendFailed, match=f"loops.onnx says that it ran {said} loops of 5: export the model again"
        ):
            core.step([sequence])
        core.close(sequence)


def test_memory_is_dealt_to_whole_pages(bundles: Bundles) -> None:
    spec = load(bundles["gqa_decode"]).spec
    for lagging in (1, 64, 1 << 20):
        memory = Memory.of(spec, 1 << 20, spec.trained_loops, lagging)
        assert 0.9 * (1 << 20) < memory.bytes <= 1 << 20
        assert memory.states.lines == min(memory.longest, lagging)
    with pytest.raises(CapacityError, match="1000 bytes hold no page of 32 positions"):
        Memory.of(spec, 1000, 1, 1)
    with pytest.raises(RequestError, match="1 to 256 loops, found 300"):
        Memory.of(spec, 1 << 20, 300, 1)


def test_a_bundle_without_row_graphs_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    folder = shutil.copytree(bundles["gqa_decode"], tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "step.onnx").unlink()
    del manifest["files"]["step.onnx"]
    manifest["targets"][0]["files"].remove("step.onnx")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"has no step.onnx, which the engine runs; export the model again"):
        open_engine(folder)
    with pytest.raises(BundleError, match=r"has no rows.pt2, the row graphs for PyTorch; export .* --target cuda"):
        open_engine(folder, backend="eager")
    with pytest.raises(RequestError, match="on the backends onnxruntime and eager, found 'tensorrt'"):
        open_engine(folder, backend="tensorrt")
    manifest["spec"]["graphs"] = {"model": manifest["spec"]["graphs"]["model"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"has no row graphs.*exit rule act there are none.*another --exit"):
        open_engine(folder)


def test_prompts_that_begin_alike_share_their_entries(row_model: RowModel) -> None:
    core = core_of(row_model, 1)
    prompt = np.random.default_rng(4).integers(0, 50, 70).tolist()
    requests = [Request((*prompt, 3), 6), Request((*prompt, 3, 4), 6), Request((*prompt[:40], 9, 9), 6)]
    expected = [serve(Engine(core), [request], [0])[0].tokens for request in requests]
    engine = Engine(core, prefixes=2)
    running = []
    for request in requests:
        running.append(engine.submit(request))
        while engine.busy:
            engine.tick()
    assert [each.tokens for each in running] == expected
    assert [each.reused for each in running] == [0, 71, 40]
    assert len(engine.prefixes) == 1  # the others' whole pages are its own
    engine.close()
    assert idle(core)


def test_depths_that_were_recorded_are_replayed(row_model: RowModel) -> None:
    core = core_of(row_model, 1)
    free = serve(Engine(core), [Request((1,), 12)], [0])[0]
    again = serve(Engine(core), [Request((1,), 12, depths=tuple(free.depth))], [0])[0]
    assert (again.tokens, again.depth) == (free.tokens, free.depth)
    planted = serve(Engine(core), [Request((1, 2, 3), 4, depths=(1, 5, 2, 4))], [0])[0]
    assert planted.depth == [1, 5, 2, 4]
    assert idle(core)


@pytest.mark.parametrize(("step", "around", "waits"), [(1.0, 1e-3, False), (1e-3, 1.0, True)])
def test_positions_leave_together_where_that_costs_less(
    row_model: RowModel, step: float, around: float, waits: bool
) -> None:
    class Known(Speed):
        """Calls cost the same, whatever their rows, and whatever they took."""

        calls = 0

        def saw(self, graph: str, rows: int, started: float, calls: int = 1) -> None:
            self.calls += bool(rows) and graph == LEAVE

        def of(self, graph: str, rows: float, sharing: int = 1) -> float:
            return self.of_call(graph)

        def of_call(self, graph: str) -> float:
            return step if graph == STEP else around

    core = core_of(row_model, 1)
    requests = [Request((number + 1,), 4, depths=(1 + number % 4,) * 4) for number in range(8)]
    engine = Engine(core)
    engine.speed = Known()
    running = serve(engine, requests, [0] * len(requests))
    assert [each.depth for each in running] == [list(request.depths) for request in requests]
    assert (engine.speed.calls == 4) is waits  # once a token, or whenever some are through
