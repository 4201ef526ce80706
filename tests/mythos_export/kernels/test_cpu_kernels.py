"""The CPU library inside ONNX Runtime: what `test_implementations` does not ask of every implementation."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess

import cpu_ops
import numpy as np
import onnx
import pytest
from cpu_ops import DOMAINS, INPUTS, LIBRARY, Array, session
from implementations import instruction_sets
from onnx import helper
from operator_cases import cache_inputs, wide
from product_cases import moe_inputs

from mythos_export.kernels.gqa.reference import gqa_attention
from mythos_export.kernels.moe.reference import moe

pytestmark = pytest.mark.skipif(
    not LIBRARY.exists(),
    reason=f"{LIBRARY} is not built: cmake -S mythos_export/kernels -B build/kernels && cmake --build build/kernels",
)


@pytest.mark.parametrize("name", ["generic", "avx2", "avx512", "avx512vnni", "neon", "neondot"])
def test_instruction_set_is_among_the_cases(name: str) -> None:
    """The cases above draw from what this machine has; this says what it has not."""
    if name not in instruction_sets():
        pytest.skip(f"this processor or this build lacks {name}")


def test_the_kernels_own_program() -> None:
    """Every size around the kernels' boundaries, and random cases of the operators, on every instruction set."""
    program = LIBRARY.parent / "mythos_kernels_test"
    if not program.exists():
        pytest.skip(f"{program} is not built: make native")
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    right = re.findall(r"^(\w+): right$", result.stdout, re.MULTILINE)
    assert sorted(right) == sorted(instruction_sets())


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

    exact = wide(fixed)
    experts, cache = ({k: v for k, v in exact.items() if k in INPUTS[op]} for op in ("moe", "gqa_attention"))
    for i in range(5):
        q = h.reshape(B, T, G, head).astype(np.float64)
        h = moe(gqa_attention(q, layer=np.array(i), **cache, scale=0.3, kv_heads=G).reshape(T, -1), **experts)
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
    with pytest.raises(Exception, match="MYTHOS_OPS_ISA is 'mmx'; it can be generic, avx2, .*, neon or neondot"):
        cpu_ops.run("moe", inputs, instructions="mmx")


@pytest.mark.skipif(shutil.which("nm") is None or shutil.which("ldd") is None, reason="needs nm and ldd")
def test_exports_only_the_entry_and_does_not_link_to_onnxruntime() -> None:
    def output_of(*command: str) -> str:
        return subprocess.run([*command, str(LIBRARY)], capture_output=True, text=True, check=True).stdout

    exported = output_of("nm", "-D", "--defined-only").splitlines()
    assert {line.split()[-1] for line in exported} == {"RegisterCustomOps", "mythos_ops_describe"}
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
