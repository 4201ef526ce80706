"""The GPU architectures that kernels are compiled for, what a block may use there, and what a kernel does use.

The latter comes from the log of the very ptxas run that made the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mythos_export.errors import KernelResourceError, TargetError, ToolFailed

# Shared memory of one block in bytes, opted in to: CUDA C++ Programming Guide, "Technical Specifications per Compute
# Capability".
SHARED_MEMORY = {80: 166_912, 86: 101_376, 89: 101_376, 90: 232_448, 100: 232_448, 120: 101_376}
ARCHITECTURES = tuple(SHARED_MEMORY)

_WAYS_AROUND = (
    "Leave sm_{} out (--sm), or export in another --precision; in the operator's plan.py what helps is smaller blocks"
)
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")


def check_architectures(architectures: Sequence[int]) -> tuple[int, ...]:
    """The architectures in ascending order, each once; raises `TargetError` for one that is not known."""
    unknown = sorted(set(architectures) - set(ARCHITECTURES))
    if unknown or not architectures:
        found = f"sm_{', sm_'.join(map(str, unknown))}" if unknown else "no architecture"
        raise TargetError(
            f"found {found}; the Triton kernels are built for sm_{', sm_'.join(map(str, ARCHITECTURES))}: "
            "ask for some of these, e.g. (80, 90)"
        )
    return tuple(sorted(set(architectures)))


@dataclass(frozen=True)
class Resources:
    """Of one thread: registers, stack and spilled bytes. Of one block: dynamic shared memory in bytes."""

    registers: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    shared_bytes: int


def read_resources(log: str, shared_bytes: int) -> Resources:
    """Resources from `ptxas -v`, whose log names one kernel."""
    spills, registers = _SPILLS.findall(log), _REGISTERS.findall(log)
    if len(spills) != 1 or len(registers) != 1:
        raise ToolFailed(
            f"ptxas reported {len(registers)} register counts and {len(spills)} spill counts, expected one of each; "
            f"its log may have a new form (this reads that of triton 3.8.0): {log.strip()[:400] or 'nothing'}"
        )
    stack, stores, loads = map(int, spills[0])
    return Resources(int(registers[0]), stack, stores, loads, shared_bytes)


def check_resources(kernel: str, architecture: int, resources: Resources) -> None:
    """Raises `KernelResourceError` where the kernel would be slow (spills) or could not be launched (shared memory)."""
    if resources.spill_store_bytes or resources.spill_load_bytes:
        raise KernelResourceError(
            f"{kernel} spills registers on sm_{architecture}: {resources.spill_store_bytes} bytes stored and "
            f"{resources.spill_load_bytes} loaded per thread, with {resources.registers} registers; expected none. "
            f"{_WAYS_AROUND.format(architecture)} or more warps"
        )
    limit = SHARED_MEMORY[architecture]
    if resources.shared_bytes > limit:
        raise KernelResourceError(
            f"{kernel} needs {resources.shared_bytes} bytes of shared memory on sm_{architecture}, where a block has "
            f"{limit}. {_WAYS_AROUND.format(architecture)} or fewer stages"
        )
