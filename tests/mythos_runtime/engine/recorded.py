"""CUDA graphs on a CPU: a capture notes every operator with its tensors, a launch runs them again on the same ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What a stream cannot be captured with: the host would have to know a value, or a size that depends on values.
_LOOKS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique", "aten::_unique2")


class RecordedGraphs:
    """In the place of `CudaCaptures`.

    Attributes:
        captured, launched: how often.
    """

    def __init__(self) -> None:
        self.captured = self.launched = 0

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.captured += 1
        work()
        with _Tape() as tape:
            work()

        def launch() -> None:
            self.launched += 1
            tape.run()

        return launch


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert func._schema.name not in _LOOKS, f"{func} cannot be captured"
        if func._schema.name in ("aten::index", "aten::index_put_"):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), f"{func} by a mask"
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out

    def run(self) -> None:
        for func, args, kwargs, before in self.calls:
            after = func(*args, **kwargs)
            for old, new in zip(tree_leaves(before), tree_leaves(after), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)
