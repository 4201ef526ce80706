"""The launch plan of mythos::rounded_line on a GPU: one program for each part of a line."""

from __future__ import annotations

import functools

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.launch_plan import KernelSpec, Plan, next_power_of_2, pointer


def plans_for(call: OperatorCall, precision: str) -> tuple[Plan, ...]:
    """The plan of one call, whose values are float32."""
    return plans(call.attributes["width"])


@functools.cache
def plans(width: int) -> tuple[Plan, ...]:
    """For parts of this width."""
    variant = f"W{width}"
    kernel = KernelSpec(
        f"rounded_line_fp32_{variant}",
        "rounded_line",
        "mythos_export.kernels.rounded_line.triton:rounded_line_kernel",
        "fp32",
        (pointer("x", "fp32"), pointer("out", "fp32")),
        {"WIDTH": width, "BLOCK": next_power_of_2(width, 16)},
        ("parts", "1", "1"),
    )
    return (Plan("rounded_line", variant, "any", "parts >= 0", ("parts",), (), (), (kernel,)),)
