"""The launch plan of mythos::rotary_embedding on a GPU: a program for some pairs of each row."""

from __future__ import annotations

import functools

from mythos_export.kernels.launch_plan import Argument, KernelSpec, Plan, next_power_of_2, pointer

_BLOCK = 1024  # pairs


@functools.cache
def plans(heads: int, pairs: int, precision: str) -> tuple[Plan, ...]:
    """For heads of so many pairs, with angles in float32."""
    variant = f"H{heads}-P{2 * pairs}"
    spec = KernelSpec(
        f"rotary_{precision}_{variant}",
        "rotary_embedding",
        "mythos_export.kernels.rotary.triton:rotary_kernel",
        precision,
        (
            pointer("x", precision),
            pointer("cos", "fp32"),
            pointer("sin", "fp32"),
            pointer("out", precision),
            Argument("stride", "i64", "stride"),
        ),
        {"HEADS": heads, "PAIRS": pairs, "BLOCK": min(_BLOCK, next_power_of_2(heads * pairs, 16))},
        ("rows", "cdiv(HEADS * PAIRS, BLOCK)", "1"),
    )
    return (Plan("rotary_embedding", variant, "any", "rows >= 0", ("rows", "stride"), (), (), (spec,)),)
