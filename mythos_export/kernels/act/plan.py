"""The launch plan of mythos::act_halting on a GPU: one program for each position, then whether any position runs on.

It knows no precision: everything is float32, whatever the model's is.
"""

from __future__ import annotations

import functools

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.launch_plan import Argument, KernelSpec, Plan, next_power_of_2, pointer

_SOURCE = "mythos_export.kernels.act.triton"
_BLOCK = 2048  # of a state, held at a time: 16 floats a thread


def plans_for(call: OperatorCall, precision: str) -> tuple[Plan, ...]:
    """The plans of one call."""
    return plans(call.size("weight", 1))


@functools.cache
def plans(D: int) -> tuple[Plan, ...]:
    """For states of D."""
    variant = f"D{D}"
    floats = {name: pointer(name, "fp32") for name in ("h", "out", "cumulative", "weight", "bias", "threshold", "p")}
    halt = KernelSpec(
        f"act_halting_halt_fp32_{variant}",
        "act_halting",
        f"{_SOURCE}:halt_kernel",
        "fp32",
        (
            *(floats[name] for name in ("h", "out", "cumulative")),
            pointer("halted", "i1"),
            pointer("depth", "i32"),
            *(floats[name] for name in ("weight", "bias", "threshold", "p")),
            pointer("out_next", "fp32"),
            pointer("cumulative_next", "fp32"),
            pointer("halted_next", "i1"),
            pointer("depth_next", "i32"),
            Argument("threshold_stride", "i32", "threshold_stride"),
        ),
        {"D": D, "BLOCK_D": min(_BLOCK, next_power_of_2(D, 16))},
        ("rows", "1", "1"),
    )
    running = KernelSpec(
        f"act_halting_running_fp32_{variant}",
        "act_halting",
        f"{_SOURCE}:running_kernel",
        "fp32",
        (pointer("halted", "i1", "halted_next"), pointer("running", "i1"), Argument("rows", "i32", "rows")),
        {"BLOCK": 1024},
        ("1", "1", "1"),
    )
    return (Plan("act_halting", variant, "any", "rows >= 0", ("rows", "threshold_stride"), (), (), (halt, running)),)
