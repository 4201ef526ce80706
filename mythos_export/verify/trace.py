"""What every iteration of the loop computed, by name, whoever computed it.

Which tensors there are, and how each is judged, says the spec (`LoopSpec.trace`, in the order of the dataflow).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from mythos_runtime.spec import LoopSpec, TraceTensor

DECISIONS = ("choice", "halted")  # kinds that a comparison decided, and that near a tie may be decided otherwise
AFTER_HALTING = " after halting"  # behind a choice's name: made for a position that no longer needs it


@dataclass(frozen=True)
class Trace:
    """The loop from inside: by tensor its values of all iterations, [n, B, T, ...]; never without a tensor."""

    arrays: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]


@dataclass(frozen=True)
class Answer:
    """What a stage answers to one case: the graph's outputs by port, and the loop from inside where it can be seen."""

    outputs: Mapping[str, np.ndarray]
    trace: Trace | None = None


@dataclass(frozen=True)
class Values:
    """Every tensor of one iteration, and of the graph around the loop, by the graph's own names.

    All are in the order in which they were computed. `behind` is what comes behind the loop; None: among `around`.
    """

    inside: Mapping[str, np.ndarray] = field(default_factory=dict)
    around: Mapping[str, np.ndarray] = field(default_factory=dict)
    behind: Mapping[str, np.ndarray] | None = None


def stacked(steps: Mapping[str, Sequence[np.ndarray]]) -> Trace:
    """A trace from the values of each iteration; of a loop that never ran, one without iterations."""
    return Trace({name: np.stack(each) if each else np.zeros((0, 1, 1), np.float32) for name, each in steps.items()})


def names(spec: LoopSpec) -> tuple[str, ...]:
    return tuple(tensor.name for tensor in spec.trace)


def decisions(spec: LoopSpec) -> tuple[TraceTensor, ...]:
    return tuple(tensor for tensor in spec.trace if tensor.kind in DECISIONS)


def halting(spec: LoopSpec) -> TraceTensor | None:
    """The tensor that tells who has halted, where there is one."""
    return next((tensor for tensor in spec.trace if tensor.kind == "halted"), None)


def state(spec: LoopSpec) -> str | None:
    """The tensor whose error is shown from iteration to iteration: the first of the loop's state that is traced, else
    the first value."""
    carried = {tensor.name for tensor in spec.state}
    values = [tensor.name for tensor in spec.trace if tensor.kind == "value"]
    return next((name for name in values if name in carried), next(iter(values), None))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array; bfloat16 as ml_dtypes has it."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return np.asarray(tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16))
    return np.asarray(tensor.numpy())


def to_torch(array: np.ndarray) -> torch.Tensor:
    """The reverse; a copy."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array)).reshape(array.shape).clone()
