"""Launches a program's kernels as its plans say: `triton_run.execute` without Triton and torch."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from typing import Any

from mythos_export.kernels.launch_plan import Argument, KernelSpec, Plan, Sizes, choose, evaluate
from mythos_export.kernels.plugin.driver import Driver, Launch
from mythos_export.kernels.plugin.program import Binary, Program
from mythos_export.kernels.plugin.record import Attributes

_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "i32": 4}
_SCALARS: dict[str, type[ctypes._SimpleCData[Any]]] = {
    "i32": ctypes.c_int32,
    "i64": ctypes.c_int64,
    "fp32": ctypes.c_float,
}
_WARP = 32
_ALIGNMENT = 256  # of the parts of one allocation: what cuMemAlloc gives, and more than any kernel was promised


class Launcher:
    """A program on one GPU. Kernels are loaded when a plan first needs them."""

    def __init__(self, program: Program, driver: Driver) -> None:
        """Raises RuntimeError where the program holds no code for this GPU."""
        self._program, self._driver = program, driver
        self._architecture = driver.capability()
        if self._architecture not in program.architectures:
            built = ", ".join(f"sm_{sm}" for sm in program.architectures)
            raise RuntimeError(
                f"the kernels of mythos::{program.operator} were compiled for {built}, this GPU is sm_"
                f"{self._architecture}: export again with --sm {self._architecture}"
            )
        self._functions: dict[str, int] = {}

    @property
    def attributes(self) -> Attributes:
        """Of the node whose program this is."""
        return self._program.attributes

    def run(self, buffers: Mapping[str, int], sizes: Sizes, stream: int) -> None:
        """Put the kernels of one call into a stream.

        Args:
            buffers: addresses of the operator's inputs and of "out".
            sizes: what the plans call their sizes.

        Scratch memory comes from the stream's own pool and not from TensorRT's workspace: how much is needed does not
        grow with every extent, so that what the largest shapes need is no bound.
        """
        plan = choose(self._program.plans, sizes)
        known = plan.resolve(sizes)
        offsets, total = _layout(plan, known)
        scratch = self._driver.allocate(total, stream) if total else 0
        addresses = {**buffers, **{name: scratch + offset for name, offset in offsets.items()}}
        try:
            for spec in plan.launches:
                binary = self._program.binaries[spec.name, self._architecture]
                function = self._function(spec.name, binary)
                launch = launch_of(spec, function, binary.shared_bytes, addresses, known)
                if launch is not None:
                    self._driver.launch(launch, stream)
        finally:
            if total:
                self._driver.free(scratch, stream)

    def _function(self, name: str, binary: Binary) -> int:
        if name not in self._functions:
            self._functions[name] = self._driver.function(binary.image, binary.entry, binary.shared_bytes)
        return self._functions[name]


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


def _layout(plan: Plan, known: Sizes) -> tuple[dict[str, int], int]:
    """Where each scratch buffer begins in one allocation, and the bytes of it all."""
    offsets, total = {}, 0
    for buffer in plan.scratch:
        offsets[buffer.name] = total
        size = _BYTES[buffer.type] * math.prod(evaluate(extent, known) for extent in buffer.shape)
        total += -(-size // _ALIGNMENT) * _ALIGNMENT
    return offsets, total
