"""Whether row graphs in PyTorch that were compiled compute what rows.pt2's do: `compiled.compile_rows` asks.

Sequences on both sides of a page, alone and beside each other, run with both: tokens are generated at the trained
depth, and the prompts' positions halt by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from mythos_runtime.engine.chunks import Answer, Chunk, Leaving
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.device.captures import Direct
from mythos_runtime.engine.device.graphs import DeviceGraphs
from mythos_runtime.engine.device.memory import DeviceStates, TorchPlace
from mythos_runtime.engine.memory import Memory, Room
from mythos_runtime.engine.request import Request
from mythos_runtime.errors import BackendFailed
from mythos_runtime.row_ports import PAGE, ROWS
from mythos_runtime.spec import LoopSpec
from mythos_runtime.torch_device import TorchDevice

NEAR = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""How far logits may be from those of rows.pt2, of the largest: sums are rounded in another order. As far, of 1, may
what a position halts by be from the threshold for the decision to count as a near tie: it is a sum of probabilities, or
how much of a state has changed, which is off by what the state is off by, however small the threshold."""

_NEW = 3  # tokens of each sequence
_MOST_ROWS = 64

Programs = Mapping[str, Callable[..., Any]]


def compare(spec: LoopSpec, device: TorchDevice, plain: Programs, compiled: Programs) -> dict[str, Any]:
    """Run both; what was compared, for the description.

    Returns: tokens, whose logits at the trained depth are within `allowed` of the largest (`largest_distance`), as far
    as both chose the same ones; where positions halt before the last loop, also the thresholds at which any does
    (`thresholds`; empty where the model halts, but nowhere in these prompts), the positions whose depths are equal
    there and whose logits are as near, and how many were left out: those from the first on, in a sequence, that is so
    near to its threshold that a rounding decides.

    Raises:
        BackendFailed: something is not equal.
    """
    near = NEAR[next(group.dtype for group in spec.caches if group.per_loop)]
    largest, count = _generated(spec, device, plain, compiled)
    found: dict[str, Any] = {"tokens": count, "allowed": near}
    tried, thresholds = _thresholds(spec), []
    kept, left_out = 0, 0
    for threshold in tried:
        halted = _halted(spec, device, plain, compiled, threshold, near)
        largest = max(largest, halted.distance)
        if halted.early:  # else it says nothing about where positions halt
            thresholds.append(threshold)
            kept, left_out = kept + halted.positions, left_out + halted.left_out
    if tried:
        found |= {"thresholds": thresholds}
    if thresholds:
        found |= {"positions": kept, "near_ties_left_out": left_out}
    if largest > near:
        raise BackendFailed(
            f"what torch compiled does not compute what {ROWS} does: logits are off by {largest:.2g} of the largest, "
            f"{near:g} is allowed"
        )
    return found | {"largest_distance": largest}


# -- at the trained depth ---------------------------------------------------------------------------------------------


def _generated(spec: LoopSpec, device: TorchDevice, plain: Programs, compiled: Programs) -> tuple[float, int]:
    """How far logits are apart, and of how many tokens."""
    answers, other = (_answers(spec, device, programs) for programs in (plain, compiled))
    largest, count = 0.0, 0
    for (tokens, logits), (other_tokens, other_logits) in zip(answers, other, strict=True):
        for at in range(len(tokens)):
            largest, count = max(largest, _distance(other_logits[at], logits[at])), count + 1
            if other_tokens[at] != tokens[at]:  # what comes next answers something else
                break
    return largest, count


def _answers(spec: LoopSpec, device: TorchDevice, programs: Programs) -> list[tuple[list[int], np.ndarray]]:
    """New tokens of the prompts, and their logits [tokens, V]."""
    from mythos_runtime.engine.engine import Engine

    prompts = _prompts(spec)
    engine = Engine(_core(spec, device, programs, prompts))
    depths = depths_of(spec, _NEW)
    running = [engine.submit(Request(prompt, _NEW, depths=depths)) for prompt in prompts]
    logits: dict[int, list[np.ndarray]] = {}
    while engine.busy:
        for token in engine.tick():
            logits.setdefault(running.index(token.running), []).append(token.logits)
    engine.close()
    return [(each.tokens, np.stack(logits[at])) for at, each in enumerate(running)]


def depths_of(spec: LoopSpec, new: int) -> tuple[int, ...]:
    """Every loop for each token, or a near tie of the halting would count as a difference; where nothing halts,
    requests take no depths, and every loop runs."""
    return (spec.trained_loops,) * new if spec.exit.knob("halt_threshold") is not None else ()


# -- where positions halt ---------------------------------------------------------------------------------------------


def _thresholds(spec: LoopSpec) -> list[float]:
    """As trained, and half of it, where other positions halt; none where the model halts nowhere."""
    knob = spec.exit.knob("halt_threshold")
    if knob is None:
        return []
    half = float(np.float32(knob.default / 2))
    fits = (knob.least is None or half >= knob.least) and (knob.most is None or half <= knob.most)
    trained = float(np.float32(knob.default))
    return [trained, *([half] if fits and math.isfinite(half) and half != trained else [])]


class _Halted(NamedTuple):
    """distance: how far logits are apart where all positions halt alike. positions: of how many. left_out: the others.
    early: whether any position halts before the last loop."""

    distance: float
    positions: int
    left_out: int
    early: bool


def _halted(
    spec: LoopSpec, device: TorchDevice, plain: Programs, compiled: Programs, threshold: float, near: float
) -> _Halted:
    """Both at a threshold.

    A position halts with the first loop that reaches the threshold. Where it halts with the same at one that is a
    little lower and at one that is a little higher, no rounding could turn it. Where it does not, it may halt
    otherwise, and what is behind it reads what it left: as in verification, nothing is compared from there on.
    """
    prompts = _prompts(spec)
    little = near if math.isfinite(threshold) else 0.0

    def run(programs: Programs, threshold: float) -> list[Answer]:
        return _forward(spec, device, programs, prompts, threshold)

    expected, got = run(plain, threshold), run(compiled, threshold)
    lower, higher = (run(plain, threshold + by) for by in (-little, little)) if little else (expected, expected)
    largest, count = 0.0, 0
    for want, have, below, above in zip(expected, got, lower, higher, strict=True):
        ties = np.flatnonzero((below.depth != want.depth) | (above.depth != want.depth))
        clean = int(ties[0]) if ties.size else len(want.depth)
        for at in range(clean):
            if have.depth[at] != want.depth[at]:
                raise BackendFailed(
                    f"what torch compiled does not compute what {ROWS} does: position {at} of {len(want.depth)} halts "
                    f"after {have.depth[at]} loops, there after {want.depth[at]}, and at no threshold from "
                    f"{threshold - little:.6g} to {threshold + little:.6g} after another number"
                )
            largest = max(largest, _distance(have.logits[at], want.logits[at]))
        count += clean
    early = any((answer.depth < spec.trained_loops).any() for answer in expected)
    return _Halted(largest, count, sum(map(len, prompts)) - count, bool(early))


def _forward(
    spec: LoopSpec, device: TorchDevice, programs: Programs, prompts: list[list[int]], threshold: float
) -> list[Answer]:
    """Logits and depths of every position of the prompts, which run beside each other."""
    core = _core(spec, device, programs, prompts)
    sequences = [core.open(spec.trained_loops, threshold) for _ in prompts]
    core.enter([Chunk(s, np.array(ids, np.int64)) for s, ids in zip(sequences, prompts, strict=True)])
    core.run(sequences)
    answers = core.leave([Leaving(sequence, every=True) for sequence in sequences])
    for sequence in sequences:
        core.close(sequence)
    return answers


# -- what both have in common -----------------------------------------------------------------------------------------


def _prompts(spec: LoopSpec) -> list[list[int]]:
    """One token, a few, and more than a page; together no more than a call takes."""
    random = np.random.default_rng(0)
    lengths = sorted({1, 3, min(spec.max_seq_len - _NEW, PAGE + 5)})
    return [random.integers(0, spec.vocab_size, length).tolist() for length in lengths]


def _core(spec: LoopSpec, device: TorchDevice, programs: Programs, prompts: list[list[int]]) -> Core:
    """With room for the prompts and their new tokens."""
    lengths = [len(prompt) + _NEW for prompt in prompts]
    place = TorchPlace(device.torch, device.name)
    blocks = sum(-(-length // PAGE) for length in lengths) + len(prompts)
    room = Room(blocks, blocks * spec.trained_loops, sum(lengths) + PAGE)
    memory = Memory.with_room(spec, room, place, partial(DeviceStates, place=place))
    return Core(DeviceGraphs(spec, programs, place, Direct(), memory, _MOST_ROWS), memory)


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Of the largest, infinite for what is no number."""
    distance = float(np.abs(found - expected).max() / np.abs(expected).max())
    return distance if distance == distance else math.inf
