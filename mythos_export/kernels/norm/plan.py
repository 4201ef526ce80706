"""The launch plan of mythos::rms_norm on a GPU: one program for each row."""

from __future__ import annotations

import functools

from mythos_export.kernels.launch_plan import Argument, KernelSpec, Plan, next_power_of_2, pointer

_BLOCK = 4096  # of a row, held at a time


@functools.cache
def plans(D: int, given: str, precision: str, weighted: bool) -> tuple[Plan, ...]:
    """For rows of D in the precision `given`, normed into `precision`, times a weight or not."""
    block = min(_BLOCK, next_power_of_2(D, 16))
    variant = f"D{D}-{given}{'' if weighted else '-plain'}"
    spec = KernelSpec(
        f"rms_norm_{'same' if given == precision else 'narrowing'}_{precision}_{variant}",
        "rms_norm",
        "mythos_export.kernels.norm.triton:norm_kernel",
        precision,
        (
            pointer("x", given),
            pointer("weight", precision),
            pointer("out", precision),
            Argument("eps", "fp32", "eps"),
        ),
        {"D": D, "WEIGHTED": weighted, "BLOCK_D": block},
        ("rows", "1", "1"),
        num_warps=8 if block >= 2048 else 4,
    )
    return (Plan("rms_norm", variant, "any", "rows >= 0", ("rows", "eps"), (), (), (spec,)),)
