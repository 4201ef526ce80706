"""The CPU library inside ONNX Runtime: every operator, instruction set and precision against float64 references."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import shutil
import subprocess
from typing import Any

import cpu_ops
import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
import pytest
from cpu_ops import DOMAINS, INPUTS, LIBRARY, Array, distance, isa, node_model, session
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

pytestmark = pytest.mark.skipif(
    not LIBRARY.exists(),
    reason=f"{LIBRARY} is not built: cmake -S mythos_export/kernels -B build/kernels && cmake --build build/kernels",
)
# Several times what was measured: float32 sums in another order; one rounding of the result to float16.
TOLERANCE = {"float32": 2e-6, "float16": 6e-4}


@functools.cache
def supported() -> list[str]:
    """The instruction sets that this processor and this build have; the plain one always."""
    names = ["generic"]
    for name in ("avx2", "avx512"):
        with contextlib.suppress(ort.capi.onnxruntime_pybind11_state.InvalidArgument), isa(name):
            session(node_model("moe"))
            names.append(name)
    return names


@functools.cache
def made(op: str, dtype: str, instructions: str, threads: int, attributes: tuple[Any, ...]) -> ort.InferenceSession:
    with isa(instructions):
        return session(node_model(op, np.dtype(dtype).type, **dict(attributes)), threads)


def check(op: str, inputs: dict[str, Array], instructions: str, threads: int, **attributes: Any) -> None:
    dtype = next(iter(inputs.values())).dtype.name
    got = made(op, dtype, instructions, threads, tuple(attributes.items())).run(None, inputs)[0]
    assert distance(op, inputs, got, **attributes) < TOLERANCE[dtype]


def moe_inputs(
    seed: int, n: int, D: int, E: int, K: int, F: int, Fs: int, dtype: type = np.float32
) -> dict[str, Array]:
    r = np.random.default_rng(seed)
    index = np.stack([r.permutation(E)[:K] for _ in range(n)]) if n else np.zeros((0, K))

    def weights(*shape: int) -> Array:
        return (r.standard_normal(shape) / max(shape[-1], 1) ** 0.5).astype(dtype)

    return {
        "x": r.standard_normal((n, D)).astype(dtype),
        "expert_index": index.astype(np.int64),
        "expert_weight": weights(n, K),
        "routed_gate_up": weights(E, 2 * F, D),
        "routed_down": weights(E, D, F),
        "shared_gate_up": weights(2 * Fs, D),
        "shared_down": weights(D, Fs),
    }


def cache_inputs(seed: int, B: int, T: int, S: int, C: int, dtype: type = np.float32) -> dict[str, Array]:
    """Uneven lengths and random padding; NaN wherever nothing may be read."""
    r = np.random.default_rng(seed)
    lengths = r.integers(0, S, B, endpoint=True)
    layers = int(r.integers(1, 4))
    past, chunk = r.standard_normal((layers, B, S, C)), r.standard_normal((B, T, C))
    real = r.random((B, T)) < r.choice([1.0, 0.7], (B, 1))
    chunk[~real] = np.nan
    for b in range(B):
        past[:, b, lengths[b] :] = np.nan
    return {
        "past": past.astype(dtype),
        "layer": np.array(r.integers(layers)),
        "chunk": chunk.astype(dtype),
        "positions": np.where(real, lengths[:, None] + np.cumsum(real, 1) - 1, -1),
        "past_lengths": lengths,
    }


batch_tokens_capacity = st.tuples(
    st.integers(1, 3), st.sampled_from([1, 1, 2, 5, 12, 40, 130]), st.sampled_from([0, 1, 7, 64, 300])
)
precisions = st.sampled_from([np.float32, np.float16])
run_with = {
    "seed": st.integers(0, 2**32 - 1),
    "instructions": st.deferred(lambda: st.sampled_from(supported())),
    "threads": st.sampled_from([1, 2]),
}
many = settings(max_examples=100, deadline=None)


@many
@given(
    **run_with,
    n=st.integers(0, 40),
    D=st.sampled_from([1, 16, 64, 85]),
    E_K=st.integers(1, 9).flatmap(lambda E: st.tuples(st.just(E), st.integers(1, E))),
    F_Fs=st.tuples(st.sampled_from([1, 8, 33, 64]), st.sampled_from([0, 5, 48])),
    dtype=precisions,
)
def test_moe(
    seed: int, instructions: str, threads: int, n: int, D: int, E_K: tuple[int, int], F_Fs: tuple[int, int], dtype: type
) -> None:
    check("moe", moe_inputs(seed, n, D, *E_K, *F_Fs, dtype), instructions, threads)


@many
@given(
    **run_with,
    B_T_S=batch_tokens_capacity,
    H=st.integers(1, 5),
    widths=st.tuples(*map(st.sampled_from, ([1, 13, 32], [2, 6, 16], [1, 10, 32], [4, 21, 64]))),
    dtype=precisions,
)
def test_mla_attention(
    seed: int,
    instructions: str,
    threads: int,
    B_T_S: tuple[int, int, int],
    H: int,
    widths: tuple[int, ...],
    dtype: type,
) -> None:
    nope, rope, v, R = widths
    r = np.random.default_rng(seed)
    inputs = {
        "q_nope": r.standard_normal((*B_T_S[:2], H, nope)).astype(dtype),
        "q_rope": r.standard_normal((*B_T_S[:2], H, rope)).astype(dtype),
        **cache_inputs(seed, *B_T_S, R + rope, dtype),
        "kv_up": (r.standard_normal((H * (nope + v), R)) / R**0.5).astype(dtype),
    }
    check("mla_attention", inputs, instructions, threads, scale=0.25, v_head_dim=v)


@many
@given(
    **run_with,
    B_T_S=batch_tokens_capacity,
    G_shared=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    head=st.sampled_from([2, 11, 32]),
    dtype=precisions,
)
def test_gqa_attention(
    seed: int,
    instructions: str,
    threads: int,
    B_T_S: tuple[int, int, int],
    G_shared: tuple[int, int],
    head: int,
    dtype: type,
) -> None:
    G, shared = G_shared
    q: Array = np.random.default_rng(seed).standard_normal((*B_T_S[:2], G * shared, head)).astype(dtype)
    inputs = {"q": q, **cache_inputs(seed, *B_T_S, 2 * G * head, dtype)}
    check("gqa_attention", inputs, instructions, threads, scale=0.25, kv_heads=G)


@pytest.mark.parametrize("name", ["generic", "avx2", "avx512"])
def test_instruction_set_is_among_the_cases(name: str) -> None:
    """The cases above draw from what this machine has; this says what it has not."""
    if name not in supported():
        pytest.skip(f"this processor or this build lacks {name}")


def test_moe_of_a_token_does_not_depend_on_company_or_threads() -> None:
    inputs = moe_inputs(3, n=37, D=96, E=4, K=2, F=40, Fs=24)
    together = cpu_ops.run("moe", inputs)
    assert np.array_equal(together, cpu_ops.run("moe", inputs, threads=2))
    for i in (0, 18, 36):
        alone = {k: v[i : i + 1] if k in ("x", "expert_index", "expert_weight") else v for k, v in inputs.items()}
        assert np.array_equal(cpu_ops.run("moe", alone)[0], together[i])


def test_attention_does_not_depend_on_threads() -> None:
    q: Array = np.random.default_rng(5).standard_normal((2, 1, 8, 32)).astype(np.float32)
    inputs = {"q": q, **cache_inputs(5, 2, 1, 1000, 128)}
    one, two = (cpu_ops.run("gqa_attention", inputs, threads=n, scale=0.2, kv_heads=2) for n in (1, 2))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("threads", [1, 2])
def test_operators_run_inside_a_loop(threads: int) -> None:
    """h -> moe(gqa(h, past at the iteration)), five times, in a Loop whose body knows no shapes."""
    B, T, G, head = 1, 4, 2, 12
    fixed = {**moe_inputs(1, T, G * head, E=4, K=2, F=9, Fs=6), **cache_inputs(1, B, T, 17, 2 * G * head)}
    h = fixed.pop("x")
    del fixed["layer"]
    fixed["past"] = np.resize(fixed["past"], (5, *fixed["past"].shape[1:]))
    shapes = {"q_shape": np.array([B, T, G, head]), "h_shape": np.array([T, G * head])}

    def value(name: str, array: Array, shape: list[int] | None = None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)

    attention = ["q", "past", "i", "chunk", "positions", "past_lengths"]
    nodes = [
        helper.make_node("Identity", ["go"], ["go_on"]),
        helper.make_node("Reshape", ["h", "q_shape"], ["q"]),
        helper.make_node("gqa_attention", attention, ["a"], domain="mythos", scale=0.3, kv_heads=G),
        helper.make_node("Reshape", ["a", "h_shape"], ["x"]),
        helper.make_node("moe", INPUTS["moe"], ["h_next"], domain="mythos"),
    ]
    # What the Loop itself counts and tests must have a shape.
    carried = [value("i", np.array(0), []), value("go", np.array(True), []), value("h", h)]
    body = helper.make_graph(nodes, "body", carried, [value("go_on", np.array(True), []), value("h_next", h)])
    loop = helper.make_node("Loop", ["n", "", "h0"], ["h_last"], body=body)
    feeds = {"h0": h, "n": np.array(5), **fixed, **shapes}
    graph = helper.make_graph([loop], "g", [value(k, v) for k, v in feeds.items()], [value("h_last", h)])
    got = session(helper.make_model(graph, opset_imports=DOMAINS, ir_version=10), threads).run(None, feeds)[0]

    wide = cpu_ops.wide(fixed)
    experts, cache = ({k: v for k, v in wide.items() if k in INPUTS[op]} for op in ("moe", "gqa_attention"))
    for i in range(5):
        q = h.reshape(B, T, G, head).astype(np.float64)
        h = cpu_ops.moe(
            cpu_ops.gqa_attention(q, layer=np.array(i), **cache, scale=0.3, kv_heads=G).reshape(T, -1), **experts
        )
    assert np.linalg.norm(got - h) < 5e-6 * np.linalg.norm(h)


def test_errors_name_the_tensor_and_the_expectation() -> None:
    inputs = moe_inputs(0, n=2, D=8, E=3, K=2, F=4, Fs=0)
    with pytest.raises(Exception, match=r"mythos.moe: expert_index\[1, 0\] is 3; there are experts 0 to 2"):
        cpu_ops.run("moe", inputs | {"expert_index": np.array([[0, 1], [3, 1]])})
    with pytest.raises(Exception, match=r"mythos.moe: routed_gate_up has the shape \[3, 8, 7\], expected \[3, 8, 8\]"):
        cpu_ops.run("moe", inputs | {"routed_gate_up": inputs["routed_gate_up"][..., :7]})
    attention = {"q": np.zeros((1, 1, 4, 2), np.float32), **cache_inputs(0, 1, 1, 4, 8)}
    with pytest.raises(Exception, match=r"mythos.gqa_attention: past_lengths\[0\] is 5; the past holds 0 to 4 entries"):
        cpu_ops.run("gqa_attention", attention | {"past_lengths": np.array([5])}, scale=1.0, kv_heads=2)
    with pytest.raises(Exception, match="scale must be a positive number"):
        cpu_ops.run("gqa_attention", attention, scale=0.0, kv_heads=2)
    with pytest.raises(Exception, match="MYTHOS_OPS_ISA is 'mmx'; it can be generic, avx2 or avx512"):
        cpu_ops.run("moe", inputs, instructions="mmx")


@pytest.mark.skipif(shutil.which("nm") is None or shutil.which("ldd") is None, reason="needs nm and ldd")
def test_exports_only_the_entry_and_does_not_link_to_onnxruntime() -> None:
    def output_of(*command: str) -> str:
        return subprocess.run([*command, str(LIBRARY)], capture_output=True, text=True, check=True).stdout

    exported = output_of("nm", "-D", "--defined-only").splitlines()
    assert [line.split()[-1] for line in exported] == ["RegisterCustomOps"]
    assert "onnxruntime" not in output_of("ldd")


def test_an_onnxruntime_that_is_too_old_is_refused_with_a_reason() -> None:
    """A runtime whose only table is that of version 1, where the first function makes a status."""
    said: list[bytes] = []
    version = ctypes.create_string_buffer(b"1.5.0")

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    def create_status(_code: int, message: bytes) -> int:
        said.append(message)
        return 1

    table = (ctypes.c_void_p * 1)(ctypes.cast(create_status, ctypes.c_void_p))
    get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(lambda v: ctypes.addressof(table) if v == 1 else None)
    get_version = ctypes.CFUNCTYPE(ctypes.c_void_p)(lambda: ctypes.addressof(version))
    base = (ctypes.c_void_p * 2)(ctypes.cast(get_api, ctypes.c_void_p), ctypes.cast(get_version, ctypes.c_void_p))
    register = ctypes.CDLL(str(LIBRARY)).RegisterCustomOps
    register.restype = ctypes.c_void_p
    assert register(None, ctypes.byref(base)) == 1
    assert b"or newer, and this is 1.5.0: install a newer onnxruntime" in said[0]
