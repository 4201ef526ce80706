"""Forms of the GPU's kernels that generated cases are too small to reach, in Triton's interpreter."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from operator_cases import OperatorCase, cache_inputs
from product_cases import moe_inputs

from mythos_export.kernels.launch_plan import Plan, choose
from mythos_export.kernels.mla.plan import plans as mla_plans
from mythos_export.kernels.moe.plan import plans as moe_plans
from mythos_export.kernels.norm.reference import rms_norm as norm_reference
from mythos_export.kernels.rotary.reference import rotary_embedding as rotary_reference
from mythos_export.kernels.tail.reference import loop_tail as tail_reference
from mythos_model import ops, products

triton = pytest.importorskip("triton")
from mythos_export.kernels.moe.triton import line_of  # noqa: E402


def tensors(case: OperatorCase) -> dict[str, torch.Tensor]:
    finite = {k: np.nan_to_num(v, nan=3.0) if k == "chunk" else v for k, v in case.inputs.items()}
    return {k: torch.from_numpy(np.ascontiguousarray(v)).reshape(v.shape) for k, v in finite.items()}


def distance(case: OperatorCase, run: Callable[..., torch.Tensor]) -> float:
    return case.distance((run(**tensors(case), **case.attributes).numpy(),))


@pytest.mark.parametrize(
    ("pairs", "experts", "rows"),
    [
        (700, 5, 64),
        (9, 64, 64),
        pytest.param(64 * 70, 3, 32, marks=pytest.mark.slow),
        pytest.param(640, 512, 128, marks=pytest.mark.slow),
    ],
)
def test_pairs_are_grouped_by_expert(pairs: int, experts: int, rows: int) -> None:
    """Each once, in their order, every expert's in blocks of its own; by several programs at once."""
    from mythos_export.kernels.triton_run import execute

    precision = {32: "fp32", 64: "fp16", 128: "fp16"}[rows]
    path = "prefill_many" if rows == 128 else "prefill"
    plan = next(plan for plan in moe_plans(16, 16, 0, experts, 1, precision) if plan.path == path)
    sizes = plan.resolve({"n": pairs})
    index = torch.from_numpy(np.random.default_rng(pairs).integers(experts, size=(pairs, 1)))
    blocks = int(sizes["blocks"])
    found = {
        "sorted_pairs": torch.full((blocks, rows), -1, dtype=torch.int32),
        "block_expert": torch.full((blocks,), -2, dtype=torch.int32),
        "counts": torch.full((int(sizes["chunks"]), 1 << (experts - 1).bit_length()), -1, dtype=torch.int32),
    }
    only = Plan("moe", "", "", "n > 0", ("n",), plan.derived, (), plan.launches[:2])
    execute(only, {"expert_index": index, "out": index, **found}, {"n": pairs})
    expected = np.argsort(index[:, 0].numpy(), kind="stable")
    lines, owner = found["sorted_pairs"].numpy(), found["block_expert"].numpy()
    used = int((owner >= 0).sum())
    assert (owner[used:] == -1).all() and (np.diff(owner[:used]) >= 0).all()
    real = lines[:used][lines[:used] < pairs]
    assert np.array_equal(real, expected)
    for block in range(used):
        inside = lines[block]
        assert (index[inside[inside < pairs], 0].numpy() == owner[block]).all() and (
            inside[inside >= pairs] == pairs
        ).all()


@triton.jit
def lines_kernel(index, out, WIDTH: triton.language.constexpr, COUNT: triton.language.constexpr):
    triton.language.store(out, line_of(triton.language.load(index), WIDTH, COUNT))


@pytest.mark.parametrize(("width", "count"), [(8192, 434176), (434176, 8192), (8192, 13568), (65536, 32768)])
def test_lines_of_matrices_that_32_bits_do_not_count(width: int, count: int) -> None:
    """The shared experts of 100b, both ways; an expert of it; and just as many values as do not fit."""
    out = torch.zeros(1, dtype=torch.int64)
    lines_kernel[(1,)](torch.tensor([count - 1], dtype=torch.int32), out, width, count)
    assert out.item() == width * (count - 1)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0, 24])
def test_many_rows_for_each_expert(shared: int) -> None:
    from mythos_export.kernels.moe.triton import moe

    case = OperatorCase("moe", moe_inputs(3, 150, 40, 2, 2, 20, shared, np.float16), {})
    chosen = choose(moe_plans(40, 20, shared, 2, 2, "fp16"), {"n": 150})
    assert chosen.path == "prefill_many"
    assert distance(case, moe) < 5e-3


def test_the_form_that_multiplies_less_is_taken() -> None:
    """As the plain operator decides, but for few rows, which the absorbed form serves."""
    for H, nope, P, v, R in ((16, 64, 32, 64, 256), (2, 16, 8, 16, 64), (64, 128, 64, 128, 512)):
        plans = mla_plans(H, nope, P, v, R, "fp16")
        for T, S in itertools.product((1, 2, 3, 17, 64, 512, 4096), (0, 5, 300, 8192)):
            sizes = {"B": 2, "T": T, "S": S, "stride_layer": 0, "stride_batch": 0, "scale": 1.0}
            few, absorbed = T * H <= 32, ops.absorbed_is_cheaper(T, S + T, nope, v, R, P)
            assert choose(plans, sizes).path == ("decode" if few else "prefill" if absorbed else "expanded")


@pytest.mark.slow
@pytest.mark.parametrize(("T", "S", "dtype"), [(70, 0, np.float32), (70, 90, np.float16), (130, 7, np.float16)])
def test_keys_and_values_of_every_head(T: int, S: int, dtype: type) -> None:
    from mythos_export.kernels.mla.triton import mla_attention

    B, H, nope, rope, v, R = 2, 3, 12, 6, 20, 80
    r = np.random.default_rng(T + S)
    inputs = {
        "q_nope": r.standard_normal((B, T, H, nope)).astype(dtype),
        "q_rope": r.standard_normal((B, T, H, rope)).astype(dtype),
        **cache_inputs(S, B, T, S, R + rope, dtype),
        "kv_up": (r.standard_normal((H * (nope + v), R)) / R**0.5).astype(dtype),
    }
    case = OperatorCase("mla_attention", inputs, {"scale": 0.25, "v_head_dim": v})
    sizes = {"B": B, "T": T, "S": S, "stride_layer": 0, "stride_batch": 0, "scale": 0.25}
    precision = {np.float32: "fp32", np.float16: "fp16"}[dtype]
    assert choose(mla_plans(H, nope, rope, v, R, precision), sizes).path == "expanded"
    assert distance(case, mla_attention) < {np.float32: 1e-5, np.float16: 5e-3}[dtype]


@pytest.mark.parametrize(
    ("D", "given", "weight"), [(5, "f4", "f4"), (37, "f4", "f2"), (64, "f2", "f2"), (33, "f4", "")]
)
def test_norms_of_rows(D: int, given: str, weight: str) -> None:
    from mythos_export.kernels.norm.triton import rms_norm

    r = np.random.default_rng(D)
    x, by = r.standard_normal((2, 3, D)).astype(given), r.standard_normal(D).astype(weight) if weight else None
    x[0, 1] = 0  # eps keeps it finite
    found = rms_norm(torch.from_numpy(x), None if by is None else torch.from_numpy(by), 1e-6).numpy()
    expected = norm_reference(x.astype(np.float64), None if by is None else by.astype(np.float64), 1e-6)
    assert found.dtype == (by.dtype if by is not None else x.dtype) and not found[0, 1].any()
    assert np.abs(found - expected).max() <= (2e-3 if "f2" in (given, weight) else 2e-6) * np.abs(expected).max()
    plain = ops.rms_norm(torch.from_numpy(x), None if by is None else torch.from_numpy(by), 1e-6).numpy()
    assert np.abs(found - plain).max() <= (2e-3 if "f2" in (given, weight) else 1e-6) * np.abs(expected).max()


@pytest.mark.parametrize(("heads", "P", "dtype"), [(1, 8, "f4"), (3, 10, "f2"), (130, 18, "f4")])
def test_rotations_of_rows_that_lie_apart(heads: int, P: int, dtype: str) -> None:
    from mythos_export.kernels.rotary.triton import rotary_embedding

    r = np.random.default_rng(P)
    angles = r.standard_normal((2, 3, P // 2)).astype(np.float32)
    wide = r.standard_normal((2, 3, heads * P + 5)).astype(dtype)
    x, cos, sin = wide[..., 5:], np.cos(angles), np.sin(angles)
    found = rotary_embedding(torch.from_numpy(wide)[..., 5:], torch.from_numpy(cos), torch.from_numpy(sin), heads)
    expected = rotary_reference(x.astype(np.float64), cos, sin, heads)
    plain = ops.rotary_embedding(torch.from_numpy(wide)[..., 5:], torch.from_numpy(cos), torch.from_numpy(sin), heads)
    for result in (found, plain):
        assert result.shape == x.shape and result.numpy().dtype == x.dtype
        assert np.abs(result.numpy() - expected).max() <= (1e-6 if dtype == "f4" else 2e-3) * np.abs(expected).max()


@pytest.mark.parametrize(("R", "D", "K", "dtype"), [(1, 64, 4, "f4"), (5, 37, 1, "f4"), (3, 1100, 5, "f2")])
def test_the_end_of_an_iteration(R: int, D: int, K: int, dtype: str) -> None:
    """One launch in place of the operators apart; rows that had halted, that halt now and that run on."""
    from mythos_export.kernels.tail.triton import loop_tail

    r = np.random.default_rng(D)
    narrow = {"x": (R, D), "update": (R, D), "lora_down": (K, D), "lora_scale": (R, K), "lora_up": (K, D)}
    wide = {"h": (R, D), "decay": (D,), "gain": (D,), "encoded": (R, D), "out": (R, D)}
    given = {
        name: (r.standard_normal(shape) / (name == "lora_down" and D**0.5 or 1)).astype(dtype)
        for name, shape in narrow.items()
    }
    given |= {name: r.standard_normal(shape).astype("f4") for name, shape in wide.items()}
    given |= {"cumulative": (r.random(R) * 0.5).astype("f4"), "halted": np.arange(R) % 3 == 1}
    given |= {"depth": np.arange(R, dtype=np.int32), "weight": (r.standard_normal((1, D)) / D).astype("f4")}
    given |= {"bias": np.array([0.5], np.float32), "threshold": np.where(np.arange(R) % 2, 0.1, 2.0).astype("f4")}
    tensors = {name: torch.from_numpy(value) for name, value in given.items()}
    wider = {name: v.astype(np.float64) if v.dtype.kind == "f" else v for name, v in given.items()}
    expected, plain, found = tail_reference(**wider), ops.loop_tail(**tensors), loop_tail(**tensors)
    for exact, other, ours in zip(expected, plain, found, strict=True):
        assert ours.dtype == other.dtype and ours.shape == other.shape
        for result in (other.numpy(), ours.numpy()):
            if result.dtype.kind == "f":
                assert np.abs(result - exact).max() <= (3e-6 if dtype == "f4" else 5e-3) * np.abs(exact).max()
            else:
                assert np.array_equal(result, exact)
    one = tensors | {"threshold": torch.tensor(0.1)}
    assert torch.equal(loop_tail(**one)[3], ops.loop_tail(**one)[3])
    assert loop_tail(**{n: v[:0] if v.shape[:1] == (R,) and n != "lora_down" else v for n, v in one.items()})[
        0
    ].shape == (0, D)


@pytest.mark.parametrize(("n", "dtype"), [(1, torch.float32), (40, torch.float32), (7, torch.bfloat16)])
def test_plain_experts_without_asking_the_device(n: int, dtype: torch.dtype) -> None:
    """What plain PyTorch computes on a GPU, where the loop over experts would wait for their numbers."""
    inputs = {k: torch.from_numpy(v) for k, v in moe_inputs(n, n, 16, 5, 2, 24, 0).items()}
    x, index, weight, gate_up, down = (t.to(dtype) if t.is_floating_point() else t for t in list(inputs.values())[:5])
    assert products.groupable(x, gate_up, down) and not products.groupable(x[:, :3], gate_up[..., :3], down[:, :3])
    nothing = x.new_zeros(0, 16), x.new_zeros(16, 0)
    expected = ops.moe(
        *(t.double() if t.is_floating_point() else t for t in (x, index, weight, gate_up, down, *nothing))
    )
    found = products.by_expert(x, index, weight, gate_up, down)
    assert (found - expected).norm() <= (2e-6 if dtype == torch.float32 else 2e-2) * expected.norm()
    assert torch.equal(found, products.by_expert(x, index, weight, gate_up, down))
