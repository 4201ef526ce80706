"""A row over a paged cache computes the same bits in any company, and its entry is appended where it is.

The engine rests on both: it packs rows as requests come and go, and its answers are those of each request alone.
"""

from __future__ import annotations

import functools
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cpu_ops
import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
import pytest
from cpu_ops import DOMAINS, LIBRARY, Array, isa, node_model, session
from hypothesis import given, settings
from hypothesis import strategies as st
from implementations import instruction_sets
from onnx import TensorProto, helper
from paged_cases import paged_inputs, with_int8_pages
from product_cases import moe_inputs

from mythos_export.kernels.paged_gqa import function as gqa_function
from mythos_export.kernels.rounded_line.reference import unpack
from mythos_runtime.row_ports import PAGE

native = pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY.name} is not built: make native")
ATTRIBUTES = {
    "paged_gqa_attention": {"scale": 0.3, "kv_heads": 2},
    "paged_mla_attention": {"scale": 0.3, "v_head_dim": 7},
}
PARTS = {"paged_gqa_attention": (9,) * 4, "paged_mla_attention": (21, 6)}  # of an int8 line
BY_ROW = {"q", "q_nope", "q_rope", "entry", "span", "position"}


def call_inputs(op: str, seed: int, spans: list[tuple[int, int]], packed: bool = False) -> dict[str, Array]:
    """All rows of the spans in one call; `packed`: int8 pages."""
    r = np.random.default_rng(seed)
    if op == "paged_gqa_attention":
        inputs = paged_inputs(seed, spans, 2 * 2 * 9, 0, np.float32)
        heads = {"q": (6, 9)}
    else:
        inputs = paged_inputs(seed, spans, 21 + 6, 0, np.float32)
        heads = {"q_nope": (5, 10), "q_rope": (5, 6)}
        inputs["kv_up"] = (r.standard_normal((5 * (10 + 7), 21)) / 4).astype(np.float32)
    if packed:
        inputs = with_int8_pages(inputs, PARTS[op])
    rows = len(inputs["span"])
    return inputs | {name: r.standard_normal((rows, *shape)).astype(np.float32) for name, shape in heads.items()}


def some_rows(inputs: dict[str, Array], rows: list[int], padding: int = 0) -> dict[str, Array]:
    """The call with these rows alone, in this order, and padding behind them."""
    chosen = {}
    for name, value in inputs.items():
        if name in BY_ROW:
            fill = -1 if value.dtype.kind == "i" else np.nan
            value = np.concatenate([value[rows], np.full((padding, *value.shape[1:]), fill, value.dtype)])
        chosen[name] = value
    return chosen


@functools.cache
def paged_session(op: str, instructions: str, threads: int, packed: bool = False) -> ort.InferenceSession:
    with isa(instructions):
        return session(node_model(op, packed=packed, **ATTRIBUTES[op]), threads)


def run_calls(op: str, run: ort.InferenceSession, inputs: dict[str, Array], calls: list[tuple[list[int], int]]) -> Any:
    """What every row computed, and the cache after all calls."""
    out: list[Any] = [None] * len(inputs["span"])
    cache = inputs["cache"]
    for rows, padding in calls:
        y, cache = run.run(None, some_rows(inputs | {"cache": cache}, rows, padding))
        assert not y[len(rows) :].any()
        for row, result in zip(rows, y, strict=False):
            out[row] = result
    return np.stack(out), cache


@st.composite
def schedules(draw: st.DrawFn, spans: list[tuple[int, int]], span: Array, position: Array) -> Any:
    """Calls that run every row once, those of a span in the order of positions: (rows, padding) each."""
    waiting = [sorted(np.flatnonzero(span == s).tolist(), key=lambda row: position[row]) for s in range(len(spans))]
    calls = []
    while any(waiting):
        takes = [(s, draw(st.sampled_from([100, 40, 5, 2, 1, 1, 0]))) for s in draw(st.permutations(range(len(spans))))]
        rows = [row for s, take in takes for row in waiting[s][:take]]
        for s, take in takes:
            del waiting[s][:take]
        if rows:
            calls.append((rows, draw(st.sampled_from([0, 0, 1, 7]))))
    return calls


@native
@pytest.mark.parametrize("op", ATTRIBUTES)
@pytest.mark.parametrize(
    ("instructions", "packed"),
    [("generic", False), ("avx2", False), ("avx512", False), ("avx2", True), ("avx512", True)],
)
def test_a_row_computes_the_same_bits_in_any_company(op: str, instructions: str, packed: bool) -> None:
    if instructions not in instruction_sets():
        pytest.skip(f"this processor or this build lacks {instructions}")
    lengths = st.tuples(st.sampled_from([0, 20, 31, 250, 300]), st.sampled_from([1, 2, 13, 33, 60]))

    @settings(max_examples=15, deadline=None)
    @given(st.data())
    def check(data: Any) -> None:
        spans = data.draw(st.lists(lengths, min_size=1, max_size=4))
        inputs = call_inputs(op, data.draw(st.integers(0, 2**32 - 1)), spans, packed)
        one = paged_session(op, instructions, 1, packed)
        in_order = sorted(range(len(inputs["span"])), key=lambda row: inputs["position"][row])
        alone = run_calls(op, one, inputs, [([row], 0) for row in in_order])
        assert np.isfinite(alone[0]).all()
        for threads in (1, 2):
            calls = data.draw(schedules(spans, inputs["span"], inputs["position"]))
            run = paged_session(op, instructions, threads, packed)
            for got, expected in zip(run_calls(op, run, inputs, calls), alone, strict=True):
                assert got.tobytes() == expected.tobytes()

    check()


@native
@pytest.mark.parametrize("op", ATTRIBUTES)
@pytest.mark.parametrize("instructions", ["generic", "avx2", "avx512"])
def test_int8_pages_give_the_bits_of_pages_of_what_they_stand_for(op: str, instructions: str) -> None:
    """Integers times their scale are exact, so a page of floats that holds them is the same to every sum."""
    if instructions not in instruction_sets():
        pytest.skip(f"this processor or this build lacks {instructions}")
    parts = PARTS[op]
    inputs = call_inputs(op, 5, [(0, 40), (33, 2), (290, 13)], packed=True)
    wide = inputs | {"cache": unpack(inputs["cache"], parts, np.float32)}
    packed, plain = (paged_session(op, instructions, 1, kind) for kind in (True, False))
    (y, cache), (expected, floats) = packed.run(None, inputs), plain.run(None, wide)
    assert y.tobytes() == expected.tobytes()
    assert np.array_equal(unpack(cache, parts, np.float32), floats, equal_nan=True)


def _bound(run: ort.InferenceSession, inputs: dict[str, Array], cache: ort.OrtValue) -> Callable[[], None]:
    """A call with one buffer as the cache before and after."""
    binding = run.io_binding()
    for name, value in inputs.items():
        if name != "cache":
            binding.bind_cpu_input(name, value)
    binding.bind_ortvalue_input("cache", cache)
    binding.bind_output("out_result", "cpu")
    binding.bind_ortvalue_output("cache_next_result", cache)
    return functools.partial(run.run_with_iobinding, binding)


@pytest.mark.parametrize("kernels", [pytest.param("native", marks=native), "portable body"])
def test_entries_are_appended_in_place(kernels: str) -> None:
    """One buffer as the cache before and after: nothing is copied, and nothing but the rows' entries changes."""
    op = "paged_gqa_attention"
    body = gqa_function.function() if kernels == "portable body" else None
    run = session(node_model(op, function=body, **ATTRIBUTES[op]), native=body is None)
    inputs = call_inputs(op, 4, [(33, 2), (0, 40)])
    expected = run.run(None, inputs)
    memory = inputs["cache"].copy()
    call = _bound(run, inputs, ort.OrtValue.ortvalue_from_numpy(memory))
    call()
    assert np.array_equal(memory, expected[1], equal_nan=True)
    # Memory that nobody has touched has no pages yet, and a copy would give it some.
    large = np.zeros((100_000, PAGE, 36), np.float32)
    call = _bound(run, inputs, ort.OrtValue.ortvalue_from_numpy(large))
    before = _resident_bytes()
    call()
    assert _resident_bytes() - before < large.nbytes / 10
    assert np.array_equal(large[inputs["tables"][1, 0], 0], inputs["entry"][2])


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@native
def test_errors_name_the_tensor_and_the_expectation() -> None:
    op = "paged_gqa_attention"
    inputs = call_inputs(op, 0, [(3, 2), (40, 1)])

    def fails(match: str, **changed: Array) -> None:
        with pytest.raises(Exception, match=match):
            cpu_ops.run(op, inputs | changed, **ATTRIBUTES[op])

    fails(r"mythos.paged_gqa_attention: span\[2\] is 2; there are spans 0 to 1, and -1", span=np.array([0, 0, 2]))
    fails(r"position\[1\] is 96; a table of 3 pages has positions 0 to 95", position=np.array([3, 96, 40]))
    fails(r"tables\[1, 1\] is -7; there are pages 0 to \d", tables=np.array([[0, -7, -7], [1, -7, -7]]))
    fails(r"entry has the shape \[3, 35\], expected \[3, 36\]", entry=inputs["entry"][:, :35])
    fails(r"cache has the shape \[9, 16, 36\], expected \[9, 32, 36\]", cache=np.zeros((9, 16, 36), np.float32))
    with pytest.raises(Exception, match=r"cache has the shape \[9, 32, 36\], expected \[9, 32, 44\]"):
        packed = paged_session(op, "generic", 1, packed=True)
        packed.run(None, inputs | {"cache": np.zeros((9, 32, 36), np.int8)})


@native
@pytest.mark.parametrize("threads", [1, 2])
def test_experts_of_a_row_do_not_depend_on_company(threads: int) -> None:
    inputs = moe_inputs(3, n=70, D=96, E=4, K=2, F=40, Fs=24)
    run = session(node_model("moe"), threads)

    def rows(chosen: slice) -> Array:
        by_row = {k: inputs[k][chosen] for k in ("x", "expert_index", "expert_weight")}
        return np.asarray(run.run(None, inputs | by_row)[0])

    alone = np.concatenate([rows(slice(i, i + 1)) for i in range(70)])
    for n in (2, 3, 8, 33, 70):
        assert np.array_equal(rows(slice(n)), alone[:n])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("K", "N"), [(64, 16), (37, 53), (300, 1), (512, 260), (1030, 48)])
def test_onnxruntime_multiplies_a_row_alike_in_any_company(K: int, N: int, threads: int) -> None:
    """Not documented there; the rows graphs rest on it wherever weights are float32, which it packs at load."""
    r = np.random.default_rng(K)
    weight = helper.make_tensor("w", TensorProto.FLOAT, [N, K], (r.standard_normal((N, K)) / K**0.5).ravel())
    nodes = [
        helper.make_node("Transpose", ["w"], ["columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "columns"], ["y"]),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["r", K]), ("y", ["r", N]))
    ]
    graph = helper.make_graph(nodes, "product", ports[:1], ports[1:], [weight])
    run = session(helper.make_model(graph, opset_imports=DOMAINS, ir_version=10), threads, native=False)
    x = r.standard_normal((65, K)).astype(np.float32)
    alone = np.concatenate([run.run(None, {"x": x[i : i + 1]})[0] for i in range(65)])
    for n in (2, 3, 4, 5, 7, 8, 16, 17, 33, 64, 65):
        assert np.array_equal(run.run(None, {"x": x[:n]})[0], alone[:n])
