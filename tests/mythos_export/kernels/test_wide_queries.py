"""Queries too wide for a warp in float32: summed up by columns in one kernel, with the same result."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from operator_cases import OperatorCase, cache_inputs
from paged_cases import paged_inputs, with_int8_pages

from mythos_export.kernels import split_plan
from mythos_export.kernels.gqa.plan import plans as gqa_plans
from mythos_export.kernels.mla.plan import plans as mla_plans
from mythos_export.kernels.paged_gqa.plan import plans as paged_gqa_plans
from mythos_export.kernels.paged_mla.plan import plans as paged_mla_plans
from mythos_model import paged_ops

PLANS = (mla_plans, gqa_plans, paged_mla_plans, paged_gqa_plans)
SPANS = [(40, 2), (0, 3)]

pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is wide for a GPU is slow in the interpreter: here a warp holds 16 columns, and a program sums up 16."""
    monkeypatch.setattr(split_plan, "_WHOLE", 16)
    monkeypatch.setattr(split_plan, "_STEP", 16)
    monkeypatch.setattr(split_plan, "_COLUMNS", 16)
    monkeypatch.setattr(split_plan, "_KEYS_PER_SPAN", 32)  # several spans
    for plans in PLANS:
        plans.cache_clear()
    yield
    for plans in PLANS:
        plans.cache_clear()


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("T", [1, 20])
def test_mla(T: int) -> None:
    from mythos_export.kernels.mla.triton import mla_attention

    B, H, nope, rope, v, R = 2, 3, 8, 6, 10, 40
    past = cache_inputs(1, B, T, 70, R + rope)
    heads = {"q_nope": normal(2, B, T, H, nope), "q_rope": normal(3, B, T, H, rope)}
    inputs = {**heads, **past, "kv_up": normal(4, H * (nope + v), R) / R**0.5}
    case = OperatorCase("mla_attention", inputs, {"scale": 0.25, "v_head_dim": v})
    check(case, mla_attention)


@pytest.mark.parametrize("T", [1, 20])
def test_gqa(T: int) -> None:
    from mythos_export.kernels.gqa.triton import gqa_attention

    B, G, shared, head = 2, 2, 2, 40
    inputs = {"q": normal(2, B, T, G * shared, head), **cache_inputs(1, B, T, 70, 2 * G * head)}
    check(OperatorCase("gqa_attention", inputs, {"scale": 0.25, "kv_heads": G}), gqa_attention)


@pytest.mark.parametrize("packed", [False, True])
def test_paged_mla(packed: bool) -> None:
    from mythos_export.kernels.paged_mla.triton import paged_mla_attention_

    H, nope, rope, v, R = 3, 8, 6, 10, 40
    inputs = paged_inputs(1, SPANS, R + rope, 0, np.float32)
    inputs = with_int8_pages(inputs, (R, rope)) if packed else inputs
    rows = len(inputs["span"])
    heads = {"q_nope": normal(2, rows, H, nope), "q_rope": normal(3, rows, H, rope)}
    given = {**heads, **inputs, "kv_up": normal(4, H * (nope + v), R) / R**0.5}
    check_paged(given, {"scale": 0.25, "v_head_dim": v}, paged_mla_attention_, paged_ops.paged_mla_attention_)


@pytest.mark.parametrize("packed", [False, True])
def test_paged_gqa(packed: bool) -> None:
    from mythos_export.kernels.paged_gqa.triton import paged_gqa_attention_

    G, shared, head = 2, 2, 40
    inputs = paged_inputs(1, SPANS, 2 * G * head, 0, np.float32)
    inputs = with_int8_pages(inputs, (head,) * (2 * G)) if packed else inputs
    given = {"q": normal(2, len(inputs["span"]), G * shared, head), **inputs}
    check_paged(given, {"scale": 0.25, "kv_heads": G}, paged_gqa_attention_, paged_ops.paged_gqa_attention_)


def test_int8_pages_of_another_width_or_precision_are_refused() -> None:
    from mythos_export.kernels.paged_gqa.triton import paged_gqa_attention_

    inputs = with_int8_pages(paged_inputs(1, SPANS, 24, 0, np.float32), (6,) * 4)
    given = {"q": normal(2, len(inputs["span"]), 4, 6), **inputs}
    tensors = {name: torch.from_numpy(array) for name, array in given.items()}
    half = {name: x.half() if x.is_floating_point() else x for name, x in tensors.items()}
    with pytest.raises(ValueError, match="int8 pages go with float32, found fp16: export without --cache int8"):
        paged_gqa_attention_(**half, scale=0.25, kv_heads=2)
    with pytest.raises(ValueError, match=r"cache has the shape .*, and its lines are of torch.int8; expected .* of 28"):
        paged_gqa_attention_(**tensors, scale=0.25, kv_heads=1)
    with pytest.raises(ValueError, match=r"its lines are of torch.float32; expected a width of 24"):
        paged_gqa_attention_(**{**tensors, "cache": tensors["cache"].float()}, scale=0.25, kv_heads=2)


def check_paged(
    inputs: dict[str, np.ndarray],
    attributes: dict[str, float],
    run: Callable[..., torch.Tensor],
    reference: Callable[..., torch.Tensor],
) -> None:
    tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
    wide = {name: x.double() if x.is_floating_point() else x for name, x in tensors.items()}
    expected, found = reference(**wide, **attributes), run(**tensors, **attributes)
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    assert torch.equal(
        tensors["cache"].nan_to_num(nan=7.0), wide["cache"].to(tensors["cache"].dtype).nan_to_num(nan=7.0)
    )


def check(case: OperatorCase, run: Callable[..., torch.Tensor]) -> None:
    finite = {**case.inputs, "chunk": np.nan_to_num(case.inputs["chunk"], nan=3.0)}
    case = OperatorCase(case.op, finite, case.attributes)
    tensors = {k: torch.from_numpy(np.ascontiguousarray(v)).reshape(v.shape) for k, v in finite.items()}
    assert case.distance((run(**tensors, **case.attributes).numpy(),)) < 1e-5
