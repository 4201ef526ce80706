"""One start of a kernel as its plan says: `triton_run.execute` without Triton and torch.

Whole operators are launched by `launcher.cpp`, which does the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from mythos_export.kernels.cuda.driver import Launch
from mythos_export.kernels.launch_plan import Argument, KernelSpec, Sizes, evaluate

_SCALARS: dict[str, type[ctypes._SimpleCData[Any]]] = {
    "i32": ctypes.c_int32,
    "i64": ctypes.c_int64,
    "fp32": ctypes.c_float,
}
_WARP = 32


def launch_of(
    spec: KernelSpec, function: int, shared_bytes: int, addresses: Mapping[str, int], sizes: Sizes
) -> Launch | None:
    """The start of a kernel on buffers at these addresses; None where there is nothing to do."""
    names: dict[str, Any] = {**sizes, **spec.constants}
    grid = [evaluate(extent, names) for extent in spec.grid]
    if not all(grid):
        return None  # a grid without blocks is an error to CUDA
    arguments: list[ctypes._SimpleCData[Any]] = [
        ctypes.c_uint64(addresses[a.value]) if a.is_pointer else _scalar(spec, a, evaluate(a.value, names))
        for a in spec.arguments
    ]
    arguments += [ctypes.c_uint64(0), ctypes.c_uint64(0)]  # Triton's own scratch, which none of them uses
    return Launch(function, grid, _WARP * spec.num_warps, shared_bytes, arguments)


def _scalar(spec: KernelSpec, argument: Argument, value: int | float) -> ctypes._SimpleCData[Any]:
    """ValueError where a number does not fit its type: ctypes would cut it."""
    made = _SCALARS[argument.type](value)
    if argument.type != "fp32" and made.value != value:
        raise ValueError(
            f"{spec.name}: {argument.name} is {value}, and its kernel takes {argument.type}: call with fewer tokens at "
            "once"
        )
    return made
