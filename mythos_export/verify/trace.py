"""What every iteration of the loop computed, as numpy arrays, whoever computed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch

from mythos_model.loop import Carry, Details


@dataclass(frozen=True)
class Trace:
    """The loop from inside; the first axis is the iteration. The order of the fields is the order of the dataflow.

    Attributes:
        entries: [n, B, T, C], new cache entries of this depth.
        experts: int [n, B, T, K], the chosen experts.
        weights: [n, B, T, K], the weight of each of them.
        h: [n, B, T, D], the recurrent state.
        p: [n, B, T], halting probability of this iteration.
        cumulative: [n, B, T], halting probability summed so far.
        depth: int32 [n, B, T], iterations that contributed so far.
        halted: bool [n, B, T], whether the position is done.
        out: [n, B, T, D], the halting-weighted sum of states so far.
    """

    entries: np.ndarray
    experts: np.ndarray
    weights: np.ndarray
    h: np.ndarray
    p: np.ndarray
    cumulative: np.ndarray
    depth: np.ndarray
    halted: np.ndarray
    out: np.ndarray

    def __len__(self) -> int:
        return len(self.h)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in TENSORS}

    def part(self, rows: slice, tokens: slice, iterations: int) -> Trace:
        """The trace of some rows and tokens, up to an iteration."""
        return Trace(**{name: array[:iterations, rows, tokens] for name, array in self.arrays.items()})


TENSORS = tuple(part.name for part in fields(Trace))
# Held to the truth only where the position has not halted yet: afterwards they reach no output of their own position,
# while their errors go on growing. What others still attend to, `new_loop`, is compared everywhere.
OF_RUNNING = {"entries", "weights", "h", "p"}
AFTER_HALTING = "experts after halting"
# Probabilities are held to 1, other tensors to their largest value.
UNIT_SCALE = {"weights", "p", "cumulative"}


@dataclass(frozen=True)
class Answer:
    """What a stage answers to one case: the graph's outputs by port, and the loop from inside where it can be seen."""

    outputs: Mapping[str, np.ndarray]
    trace: Trace | None = None


@dataclass(frozen=True)
class Values:
    """Every tensor of one iteration, and of the graph around the loop, by the graph's own names.

    `inside` and `around` are in the order in which they were computed.
    """

    inside: Mapping[str, np.ndarray] = field(default_factory=dict)
    around: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Recorder:
    """An observer of the eager loop that keeps its tensors, and the logits by which experts were chosen."""

    steps: list[dict[str, torch.Tensor]] = field(default_factory=list)
    selection: list[torch.Tensor] = field(default_factory=list)

    def __call__(self, carry: Carry, details: Details) -> None:
        step = {
            "entries": details.chunk,
            "experts": details.routing.experts,
            "weights": details.routing.weight,
            "p": details.probability,
            "h": carry.h,
            "out": carry.out,
            "cumulative": carry.cumulative,
            "depth": carry.depth,
            "halted": carry.halted,
        }
        self.steps.append(step)
        self.selection.append(details.routing.selection)

    def trace(self, empty: Mapping[str, tuple[int, ...]]) -> Trace:
        """The recorded trace; `empty` gives the shapes of one iteration for a loop that never ran."""
        if not self.steps:
            return Trace(**{name: np.zeros((0, *shape), np.float32) for name, shape in empty.items()})
        return stacked([{name: to_numpy(step[name]) for name in TENSORS} for step in self.steps])


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array; bfloat16 as ml_dtypes has it."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return np.asarray(tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16))
    return np.asarray(tensor.numpy())


def stacked(steps: Sequence[Mapping[str, np.ndarray]]) -> Trace:
    """A trace from what each iteration computed; of a loop that never ran, one without iterations."""
    if not steps:
        return Trace(**dict.fromkeys(TENSORS, np.zeros((0, 1, 1), np.float32)))
    return Trace(**{name: np.stack([step[name] for step in steps]) for name in TENSORS})
