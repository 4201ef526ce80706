"""The engine on row graphs in ONNX Runtime on a device, the CPU in its place, held to the engine on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from row_models import RowModel, forked_and_grown
from test_device import answers, hold

from mythos_runtime.batch import make_chunk
from mythos_runtime.engine.chunks import Chunk
from mythos_runtime.engine.ort_device import lines as lines_module
from mythos_runtime.engine.ort_device.device import OrtDevice
from mythos_runtime.engine.ort_device.graphs import Frame, OrtGraphs
from mythos_runtime.engine.ort_device.memory import OrtStates
from mythos_runtime.engine.ort_device.pools import Pool as LinePool
from mythos_runtime.engine.ort_device.pools import numbers_of
from mythos_runtime.engine.row_cache import Pool, RowCache
from mythos_runtime.engine.speculation import Speculation
from mythos_runtime.errors import BackendFailed


def test_answers_are_those_of_the_cpu_and_only_numbers_cross(row_model: RowModel, monkeypatch: Any) -> None:
    """The same graphs on the same rows: the same bits."""
    core = row_model.ort_core()
    graphs = core.graphs
    assert isinstance(graphs, OrtGraphs)
    device, calls = graphs.device, {"enter": 0, "step": 0, "leave": 0}

    def count(of: Any, counts: dict[str, int]) -> None:
        for name in counts:
            called = getattr(of, name)

            def counted(*given: Any, name: str = name, called: Callable[..., Any] = called) -> Any:
                counts[name] += 1
                return called(*given)

            monkeypatch.setattr(of, name, counted)

    count(graphs, calls)
    ran, up, down = device.calls, device.uploads, device.downloads
    moved = {"taken": 0, "write": 0}
    count(row_model.ort_rows.lines, moved)
    got, expected = answers(core), answers(row_model.core())
    for (tokens, depth, logits), (true_tokens, true_depth, true_logits) in zip(got, expected, strict=True):
        assert tokens == true_tokens and depth == true_depth and np.array_equal(logits, true_logits)
    # A call is one of ONNX Runtime, one piece up and, of step and leave, one down; of lines that are moved, theirs.
    assert device.calls - ran == sum(calls.values()) + sum(moved.values())
    assert device.uploads - up == sum(calls.values()) + sum(moved.values())
    assert device.downloads - down == calls["step"] + calls["leave"]
    assert moved["taken"] == moved["write"]  # nothing else is read or written from the host


@pytest.mark.parametrize("kind", ["int8_row_model", "half_row_model"])
def test_over_pages_of_another_type_answers_are_those_of_the_cpu(kind: str, request: pytest.FixtureRequest) -> None:
    made: RowModel = request.getfixturevalue(kind)
    got, expected = answers(made.ort_core()), answers(made.core(most_loops=1))
    for (tokens, depth, logits), (true_tokens, true_depth, true_logits) in zip(got, expected, strict=True):
        assert tokens == true_tokens and depth == true_depth and np.array_equal(logits, true_logits)


def test_a_cache_forks_reads_and_grows(row_model: RowModel) -> None:
    """What `Model.forward` does with it, and memory that moves under what was bound."""
    spec = row_model.model.spec
    got, got_entries = forked_and_grown(row_model.ort_core(lines=8), spec)
    expected, expected_entries = forked_and_grown(row_model.core(lines=8), spec)
    for (logits, depth, _), (true_logits, true_depth, _) in zip(got, expected, strict=True):
        assert np.array_equal(depth, true_depth) and np.array_equal(logits, true_logits)
    for name, entry in expected_entries.items():
        assert np.array_equal(got_entries[name], entry)


def test_reading_no_lines_is_an_empty_array(row_model: RowModel) -> None:
    """A fresh cache, and one of whose sequences one is empty."""
    for made in (row_model.ort_core(lines=8), row_model.core(lines=8)):
        cache = RowCache(Pool(made), 2, 40, row_model.model.spec)
        assert all(not entry.size for entry in cache.read().values())
        ids = np.array([[3, 4, 5], [0, 0, 0]])
        cache.forward(make_chunk(ids, 50, np.array([3, 0]), None), 0.7, 0, None)
        assert cache.lengths.tolist() == [3, 0]
        cache.read()


def test_lines_are_given_back_where_the_device_fails(row_model: RowModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is begun or forked and raises leaves nothing taken."""
    core = row_model.ort_core(lines=8)
    assert isinstance(core.graphs, OrtGraphs) and isinstance(core.states, OrtStates)
    states = core.states
    first = states._take(2)
    free = list(states._free)
    sequence = core.open(3, 0.5)

    def full(*given: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(core.graphs.device, "empty", full)
    with pytest.raises(MemoryError):
        states.copy(first)
    with pytest.raises(MemoryError):
        core.enter([Chunk(sequence, np.array([1, 2]))])
    assert states._free == free


def test_no_step_follows_one_that_failed(row_model: RowModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have replaced the states of some rows."""
    core = row_model.ort_core(lines=8)
    assert isinstance(core.graphs, OrtGraphs)
    sequence = core.open(3, 0.5)
    core.enter([Chunk(sequence, np.array([1, 2]))])

    def failing(frame: Any) -> Any:
        raise BackendFailed("planted")

    with monkeypatch.context() as patch:
        patch.setattr(Frame, "run", failing)
        with pytest.raises(BackendFailed, match="planted"):
            core.step([sequence])
    with pytest.raises(BackendFailed, match="open the engine again"):
        core.step([sequence])


def test_lines_cross_in_pieces(row_model: RowModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As zeros at first, from the host and back: no buffer on the way is larger than a piece."""
    lines = row_model.ort_rows.lines
    monkeypatch.setattr(lines_module, "_MOST_BYTES", 64)
    empty, made = lines.device.empty, []

    def seen(shape: tuple[int, ...], dtype: Any) -> Any:
        made.append(empty(shape, dtype))
        return made[-1]

    monkeypatch.setattr(lines.device, "empty", seen)
    pool = LinePool(lines, (5, 7, 3), "float32", 2)
    held = made.pop(0)
    assert held.nbytes == pool.nbytes and not pool[:].pool.read(pool[:].lines).any()
    rows = np.random.default_rng(0).standard_normal((5, 7, 3)).astype(np.float32)
    pool[:] = rows
    assert np.array_equal(pool.read(pool[:].lines), rows)
    assert max(buffer.nbytes for buffer in made) <= 64


def test_only_what_says_that_there_is_no_room_is_a_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    device, says = OrtDevice("cpu"), ["RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 9"]

    def failing(*given: Any) -> Any:
        raise RuntimeError(says[0])

    buffer = device.empty((2,), "float32")
    monkeypatch.setattr(device, "_ort", SimpleNamespace(OrtValue=SimpleNamespace(ortvalue_from_shape_and_type=failing)))
    with pytest.raises(MemoryError, match="requested buffer"):
        device.empty((2,), "float32")
    says[0] = "CUDA failure 700: an illegal memory access was encountered\nmore"
    with pytest.raises(BackendFailed, match="encountered$"):
        device.put(np.zeros(2, np.float32))
    broken = replace(buffer, value=SimpleNamespace(numpy=failing, update_inplace=failing))
    with pytest.raises(BackendFailed, match="illegal"):
        device.read(broken)
    with pytest.raises(BackendFailed, match="illegal"):
        device.write(broken, np.zeros(2, np.float32))


@pytest.mark.parametrize(
    "options",
    [{"speculation": lambda: Speculation(5, 2)}, {"chunk": lambda: 5, "most_running": lambda: 3}],
    ids=["drafts", "pieces"],
)
def test_answers_however_they_are_scheduled(row_model: RowModel, options: dict[str, Callable[[], Any]]) -> None:
    made = [{name: make() for name, make in options.items()} for _ in range(2)]
    hold(answers(row_model.ort_core(rows=48), **made[0]), answers(row_model.core(rows=48), **made[1]))


_one = st.one_of(st.integers(0, 2), st.just(slice(None)), st.slices(3))


@given(st.tuples(st.integers(3, 4), st.integers(3, 5), st.integers(3, 5)), st.data())
def test_lines_are_numbered_as_numpy_indexes(shape: tuple[int, ...], data: Any) -> None:
    several = st.lists(st.integers(0, 2), max_size=4).map(lambda some: np.array(some, np.int64))
    index = data.draw(
        st.one_of(
            _one,
            st.tuples(_one, several),
            st.tuples(_one, _one),
            st.tuples(st.just(slice(None)), *[st.lists(st.integers(0, 2), min_size=2, max_size=2).map(np.array)] * 2),
            several,
        )
    )
    every = np.arange(np.prod(shape)).reshape(shape)
    found = numbers_of(shape, index)
    assert np.array_equal(found, every[index]) and found.shape == every[index].shape


@pytest.mark.parametrize("index", [-1, 3, np.array([True, False, True]), (slice(None), [0, -1]), 1.0])
def test_what_is_no_number_of_a_line_is_not_taken_for_one(index: Any) -> None:
    with pytest.raises(AssertionError):
        numbers_of((3, 5), index)
