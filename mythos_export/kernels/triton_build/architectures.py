"""The GPU architectures that kernels are compiled for, and what a block of threads may use there."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import KernelRequestError

# Shared memory of one block in bytes, opted in to: CUDA C++ Programming Guide, "Technical Specifications per Compute
# Capability".
SHARED_MEMORY = {80: 166_912, 86: 101_376, 89: 101_376, 90: 232_448, 100: 232_448, 120: 101_376}
ARCHITECTURES = tuple(SHARED_MEMORY)


def check_architectures(architectures: Sequence[int]) -> tuple[int, ...]:
    """The architectures in ascending order, each once; raises `KernelRequestError` for one that is not known."""
    unknown = sorted(set(architectures) - set(ARCHITECTURES))
    if unknown or not architectures:
        found = f"sm_{', sm_'.join(map(str, unknown))}" if unknown else "no architecture"
        raise KernelRequestError(
            f"found {found}; the Triton kernels are built for sm_{', sm_'.join(map(str, ARCHITECTURES))}: "
            "ask for some of these, e.g. (80, 90)"
        )
    return tuple(sorted(set(architectures)))
