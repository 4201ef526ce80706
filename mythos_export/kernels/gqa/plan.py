"""The launch plans of mythos::gqa_attention on a GPU: attend span by span, merge."""

from __future__ import annotations

import functools

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.launch_plan import Argument, KernelSpec, Plan, next_power_of_2, pointer
from mythos_export.kernels.split_plan import split_plan


def plans_for(call: OperatorCall, precision: str) -> tuple[Plan, ...]:
    """The plans of one call."""
    return plans(call.size("q", 2), call.attributes["kv_heads"], call.size("q", 3), precision)


@functools.cache
def plans(H: int, G: int, head: int, precision: str) -> tuple[Plan, ...]:
    """For H query heads and G kv heads of `head` channels."""
    return tuple(_plan(path, H, G, head, precision) for path in ("decode", "prefill"))


def _plan(path: str, H: int, G: int, head: int, precision: str) -> Plan:
    variant = f"H{H}-G{G}-hd{head}"
    combine = KernelSpec(
        f"gqa_attention_{path}_combine_{precision}_{variant}",
        "gqa_attention",
        "mythos_export.kernels.gqa.triton:combine_kernel",
        precision,
        (
            *(pointer(name, "fp32") for name in ("part_sum", "part_max", "part_norm")),
            pointer("positions", "i64"),
            pointer("out", precision),
            Argument("rows", "i32", "rows"),
            Argument("splits", "i32", "splits"),
        ),
        {"H": H, "R": head, "BLOCK_M": 4 if path == "decode" else 16, "BLOCK_R": next_power_of_2(head, 16)},
        ("cdiv(rows, BLOCK_M)", "1", "1"),
    )
    return split_plan(
        "gqa_attention",
        variant,
        path,
        precision,
        (),
        (combine,),
        (),
        "q",
        "q",  # not read: there is no rotary part beside the query
        G=G,
        share=H // G,
        R=head,
        P=0,
        C=2 * G * head,
    )
