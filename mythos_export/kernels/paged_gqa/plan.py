"""The launch plan of mythos::paged_gqa_attention on a GPU."""

from __future__ import annotations

import functools

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.launch_plan import Argument, KernelSpec, Plan, next_power_of_2, pointer
from mythos_export.kernels.paged_plan import paged_plan

_OPERATOR = "paged_gqa_attention"


def plans_for(call: OperatorCall, precision: str) -> tuple[Plan, ...]:
    """The plan of one call."""
    return plans(call.size("q", 1), call.attributes["kv_heads"], call.size("q", 2), precision, call.packed)


@functools.cache
def plans(H: int, G: int, head: int, precision: str, packed: bool = False) -> tuple[Plan, ...]:
    """For H query heads and G kv heads of `head` channels; `packed`: over int8 pages."""
    variant = f"H{H}-G{G}-hd{head}" + "-int8-pages" * packed
    combine = KernelSpec(
        f"{_OPERATOR}_combine_{precision}_{variant}",
        _OPERATOR,
        "mythos_export.kernels.gqa.triton:combine_kernel",
        precision,
        (
            *(pointer(name, "fp32") for name in ("part_sum", "part_max", "part_norm")),
            pointer("positions", "i64", "span"),  # -1 in either for padding
            pointer("out", precision),
            Argument("rows", "i32", "queries"),
            Argument("splits", "i32", "splits"),
        ),
        {"H": H, "R": head, "BLOCK_M": 4, "BLOCK_R": next_power_of_2(head, 16)},
        ("cdiv(queries, BLOCK_M)", "1", "1"),
    )
    sizes = {"G": G, "share": H // G, "R": head, "P": 0, "C": 2 * G * head}
    return (paged_plan(_OPERATOR, variant, precision, (), (combine,), (), "q", "q", packed=packed, **sizes),)
