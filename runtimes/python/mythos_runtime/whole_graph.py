"""The call of the whole model's graph: its inputs, and what has to be true of its outputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mythos_runtime import noise
from mythos_runtime.batch import Chunk, integer
from mythos_runtime.cache import empty_past
from mythos_runtime.dense import DenseCache
from mythos_runtime.errors import CapacityError, RequestError, ResultError
from mythos_runtime.guards import check_numbers
from mythos_runtime.ports import check_arrays
from mythos_runtime.session import Session
from mythos_runtime.spec import LoopSpec

Draw = Callable[[np.ndarray], dict[str, np.ndarray]]


def initial_of(spec: LoopSpec, given: Any, seed: int) -> Draw:
    """What makes the graph's input `initial_state` of the positions; nothing where the model has none."""
    tensor = spec.initial
    seed = integer(seed, "state_seed", 0, (1 << 64) - 1)
    if tensor is None:
        if given is not None:
            raise RequestError(f"this model ({spec.family}) has no initial_state: its first state is computed")
        return lambda positions: {}
    if given is None:
        return lambda positions: {"initial_state": noise.initial_state(tensor, positions, seed)}
    try:
        array = np.ascontiguousarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise RequestError(f"initial_state should be float32 [B, T, {tensor.dims[-1]}]: {error}") from error
    if not np.isfinite(array).all():
        raise RequestError("initial_state holds NaN or infinite values")

    def check(positions: np.ndarray) -> dict[str, np.ndarray]:
        expected = (*positions.shape, tensor.dims[-1])
        if array.shape != expected:
            raise RequestError(f"initial_state has shape {list(array.shape)}, expected {list(expected)}")
        return {"initial_state": array}

    return check


def run_graph(
    session: Session, spec: LoopSpec, chunk: Chunk, loops: int, threshold: float, cache: DenseCache | None, draw: Draw
) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Run a batch of tokens as whole sequences, or behind what a cache holds, to which they are appended.

    Args:
        loops: the most to run; the cache's, where there is one.
        threshold: where tokens halt; NaN where the model has none.
        draw: see `initial_of`.

    Returns: logits float32 [B, T, V] and depth int32 [B, T]; the loops that ran, and the seconds that the graph took.

    Raises:
        RequestError, CapacityError: the tokens do not fit; nothing was computed.
        ResultError: the outputs cannot be right; nothing was written to the cache.
    """
    inputs = _inputs(spec, chunk, loops, threshold, cache, draw)
    started = time.perf_counter()
    outputs = session.run(inputs)
    seconds = time.perf_counter() - started
    ran = _check(spec, outputs, chunk, loops, cache, session.description)
    if cache is not None:
        new = {str(port.group): outputs[port.name] for port in spec.ports.outputs if port.group is not None}
        cache.append(new, chunk.valid)
    return outputs["logits"], outputs["depth"], ran, seconds


def _inputs(
    spec: LoopSpec, chunk: Chunk, loops: int, threshold: float, cache: DenseCache | None, draw: Draw
) -> dict[str, np.ndarray]:
    """The graph's inputs; every reason to refuse the tokens is found here."""
    batch = chunk.ids.shape[0]
    if cache is None:
        longest = int(chunk.counts.max())
        if longest > spec.max_seq_len:
            raise CapacityError(
                f"a sequence of {longest} tokens exceeds the {spec.max_seq_len} that this model takes (max_seq_len)"
            )
        past, past_lengths = empty_past(spec, batch, 0, loops), np.zeros(batch, np.int64)
    else:
        cache.check_room(chunk.counts)
        past, past_lengths = cache.past, cache.lengths
    positions = chunk.positions(past_lengths)
    values = {
        "ids": chunk.ids,
        "positions": positions,
        "past_lengths": past_lengths,
        "max_loops": np.array(loops, np.int64),
        "halt_threshold": np.array(threshold, np.float32),
        "early_exit": np.array(cache is None),
        **draw(positions),
    }
    return spec.ports.by_role(values, past)


def _check(
    spec: LoopSpec,
    outputs: dict[str, np.ndarray],
    chunk: Chunk,
    max_loops: int,
    cache: DenseCache | None,
    description: str,
) -> int:
    """Loops that ran, after holding the outputs against the contract (ResultError).

    Graph compilers have been seen to run a loop once too often, so the counter is not taken on trust.
    """
    depths = max(max_loops if cache is None else cache.max_loops, 1)
    symbols = {"B": chunk.ids.shape[0], "T": chunk.ids.shape[1], "N": depths}
    check_arrays(spec.ports.outputs, outputs, symbols, _wrong_output)
    early_exit = cache is None
    ran, deepest = int(outputs["loops"]), int(outputs["depth"].max())
    if not deepest <= ran <= max_loops or (not early_exit and ran != max_loops):
        wanted = f"{deepest} to {max_loops}" if early_exit else str(max_loops)
        raise ResultError(
            f"the engine ran {ran} loops, expected {wanted} (max_loops {max_loops}, deepest token {deepest}); "
            f"its results cannot be trusted ({description})"
        )
    check_numbers(outputs["logits"], chunk.valid, description)
    return ran


def _wrong_output(text: str) -> ResultError:
    return ResultError(f"the engine's output {text}")
