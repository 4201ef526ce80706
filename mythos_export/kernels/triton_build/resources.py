"""What a compiled kernel uses, from the log of the very ptxas run that made it, and whether that is good enough."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .architectures import SHARED_MEMORY
from .errors import KernelBuildError, KernelResourceError

_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")


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
        raise KernelBuildError(
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
            "Take smaller blocks or more warps in the operator's plan.py"
        )
    limit = SHARED_MEMORY[architecture]
    if resources.shared_bytes > limit:
        raise KernelResourceError(
            f"{kernel} needs {resources.shared_bytes} bytes of shared memory on sm_{architecture}, where a block has "
            f"{limit}. Take smaller blocks or fewer stages in the operator's plan.py"
        )
