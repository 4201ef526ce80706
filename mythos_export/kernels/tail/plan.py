"""The launch plan of mythos::loop_tail on a GPU: one program for each row, and one launch."""

from __future__ import annotations

import functools

from mythos_export.kernels.launch_plan import Argument, KernelSpec, Plan, next_power_of_2, pointer

_TILE = 2048  # elements of LoRA's matrices, held at a time
_BLOCK = 1024  # of a row, held at a time


@functools.cache
def plans(D: int, rank: int, precision: str) -> tuple[Plan, ...]:
    """For rows of D in `precision`, a state of D in float32, and LoRA's rank."""
    ranks = next_power_of_2(rank)
    variant = f"D{D}-R{rank}"
    narrow = {name: pointer(name, precision) for name in ("x", "update", "lora_down", "lora_scale", "lora_up")}
    names = ("h", "decay", "gain", "encoded", "out", "cumulative", "weight", "bias", "threshold")
    wide = {name: pointer(name, "fp32") for name in names}
    spec = KernelSpec(
        f"loop_tail_{precision}_{variant}",
        "loop_tail",
        "mythos_export.kernels.tail.triton:tail_kernel",
        precision,
        (
            *narrow.values(),
            *(wide[name] for name in ("h", "decay", "gain", "encoded", "out", "cumulative")),
            pointer("halted", "i1"),
            pointer("depth", "i32"),
            *(wide[name] for name in ("weight", "bias", "threshold")),
            *(pointer(f"{name}_next", "fp32") for name in ("h", "out", "cumulative")),
            pointer("halted_next", "i1"),
            pointer("depth_next", "i32"),
            Argument("threshold_stride", "i32", "threshold_stride"),
        ),
        {
            "D": D,
            "RANK": rank,
            "BLOCK_R": ranks,
            "BLOCK_D": min(_BLOCK, next_power_of_2(D, 16), max(16, _TILE // ranks)),
        },
        ("rows", "1", "1"),
    )
    return (Plan("loop_tail", variant, "any", "rows >= 0", ("rows", "threshold_stride"), (), (), (spec,)),)
