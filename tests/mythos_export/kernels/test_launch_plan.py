"""Launch plans: the grammar of their expressions, which a plug-in reads from an engine, and who may launch them."""

from __future__ import annotations

import pytest

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.cuda.launch import launch_of
from mythos_export.kernels.launch_plan import evaluate
from mythos_export.kernels.linear.plan import plans as linear_plans
from mythos_export.kernels.triton_build import kernels_for, plans_for


def test_expressions_are_integer_arithmetic() -> None:
    assert evaluate("cdiv(n, 4) + max(1, min(n, 3)) * (n // 2 - 1)", {"n": 7}) == 2 + 3 * 2
    assert evaluate("T * heads <= 32", {"T": 3, "heads": 8}) is True


REFUSED = ["__import__('os')", "n.real", "n[0]", "2 ** 99", "'a' * 9", "max(*n)", "cdiv(1, b=2)", "[n for n in n]"]


@pytest.mark.parametrize("text", [*REFUSED, "1 +", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected integers|is no expression"):
        evaluate(text, {"n": 7})


def test_calls_of_other_sizes_have_kernels_of_their_own() -> None:
    """Two mixtures of experts in one graph, one of them twice: the names differ, and a node finds its own."""
    small, large = (
        OperatorCall("moe", shapes={"expert_index": (None, 2), "routed_down": (4, 64, F), "shared_down": (64, 0)})
        for F in (16, 32)
    )
    rounded = OperatorCall("embedding", {"format": "int8"})
    plans = plans_for([small, large, small, rounded, OperatorCall("linear")], "fp16")
    assert [(plan.variant, plan.path) for plan in plans] == [
        (variant, path)
        for variant in ("D64-F16-Fs0-E4-K2", "D64-F32-Fs0-E4-K2")
        for path in ("decode", "prefill_many", "prefill")
    ]
    names = [spec.name for plan in plans for spec in plan.launches]
    assert len(names) == len(set(names)) == len(kernels_for([small, large], "fp16"))


def test_a_size_that_the_graph_does_not_say_is_named() -> None:
    call = OperatorCall("gqa_attention", {"kv_heads": 2}, {"q": (None, None, None, 8)})
    with pytest.raises(ValueError, match=r"size of dimension 2 of mythos::gqa_attention's q, whose shape is \[None"):
        plans_for([call], "fp16")


def test_a_number_that_does_not_fit_its_argument_is_refused() -> None:
    """32 bits of it would be handed on."""
    (few, many) = linear_plans(64, 64, 32, "int8", "fp32")
    (spec,) = many.launches
    buffers = dict.fromkeys(("x", "weight", "scale", "out"), 0)
    assert launch_of(spec, 0, 0, buffers, {"n": 2**31 - 1}) is not None
    with pytest.raises(ValueError, match=r"linear_many_.*: n is 2147483648, and its kernel takes i32: call with fewer"):
        launch_of(spec, 0, 0, buffers, {"n": 2**31})
