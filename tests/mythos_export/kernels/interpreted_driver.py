"""A stand-in for the CUDA driver: memory of this process, kernels in Triton's interpreter.

It lets `precompiled` run whole on a CPU: order and types of arguments, grids. What it cannot check is the compiled code
and the driver's calls themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from mythos_export.kernels.cuda.driver import Launch
from mythos_export.kernels.launch_plan import KernelSpec

ARCHITECTURE = 80
_DTYPES = {
    **{"*fp32": torch.float32, "*fp16": torch.float16, "*bf16": torch.bfloat16},
    **{"*i8": torch.int8, "*i32": torch.int32, "*i64": torch.int64},
}


class InterpretedDriver:
    """The image of a kernel is its name."""

    def __init__(self, specs: Iterable[KernelSpec] = ()) -> None:
        self._kernels = list(specs)
        self.memory: dict[int, torch.Tensor] = {}  # by address; the caller adds its inputs and result

    def capability(self) -> int:
        return ARCHITECTURE

    def function(self, image: bytes, entry: str, shared_bytes: int) -> int:
        return [spec.name for spec in self._kernels].index(image.decode())

    def launch(self, launch: Launch, stream: int) -> None:
        from mythos_export.kernels.triton_run import load_kernel  # not earlier: the interpreter is chosen before

        spec = self._kernels[launch.function]
        assert launch.threads == 32 * spec.num_warps
        assert [value.value for value in launch.arguments[len(spec.arguments) :]] == [0, 0]  # Triton's own scratch
        values = [
            self._tensor(given.value, _DTYPES[argument.type]) if argument.is_pointer else given.value
            for argument, given in zip(spec.arguments, launch.arguments, strict=False)
        ]
        load_kernel(spec.source)[tuple(launch.grid)](*values, **spec.constants)

    def _tensor(self, address: int, dtype: torch.dtype) -> torch.Tensor:
        """What is at an address, to the end of its allocation."""
        for start, block in self.memory.items():
            size = block.numel() * block.element_size()
            if start <= address < start + size:
                return block.view(-1).view(torch.uint8)[address - start : size].view(dtype)
        return torch.empty(0, dtype=dtype)  # an empty tensor has no address of its own
