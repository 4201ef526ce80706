"""Runs a network that was read from TensorRT."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mythos_export.verify.tensorrt_network.network import Layer, Loop, Network

Values = dict[str, Any]
MOST_ITERATIONS = 1 << 20


class LayerFailed(Exception):
    """A layer could not be computed."""


@dataclass
class Run:
    """What a run left behind: all values around the loop, and what was asked for of every iteration."""

    values: Values = field(default_factory=dict)
    iterations: list[Values] = field(default_factory=list)


def run(
    network: Network, inputs: Mapping[str, np.ndarray], keep: Collection[str] = (), whole: int | None = None
) -> Run:
    """Compute everything. Of every iteration the values named in `keep` are kept; of iteration `whole` all of them."""
    result = Run({name: np.asarray(inputs[name]).astype(dtype) for name, dtype in network.inputs.items()})
    for step in network.steps:
        if isinstance(step, Loop):
            _run_loop(step, result, keep, whole)
        else:
            _run_layer(step, result.values, result.values)
    return result


def _run_layer(layer: Layer, around: Values, here: Values) -> None:
    arguments = [None if name is None else here[name] if name in here else around[name] for name in layer.inputs]
    try:
        with np.errstate(all="ignore"):  # infinities and NaN are results here, and are compared
            results = layer.compute(arguments)
    except (ValueError, IndexError, TypeError) as error:
        shapes = [None if value is None else list(value.shape) for value in arguments]
        raise LayerFailed(f"{layer.kind} {layer.name} on shapes {shapes}: {error}") from error
    for (name, dtype), array in zip(layer.outputs, results, strict=True):
        array = np.asarray(array)
        if array.dtype != dtype:
            with np.errstate(all="ignore"):
                array = array.astype(dtype)
        here[name] = array


def _run_loop(loop: Loop, result: Run, keep: Collection[str], whole: int | None) -> None:
    around = result.values
    state = {name: around[first] for name, (first, _) in loop.state.items()}
    most = int(around[loop.count]) if loop.count is not None else MOST_ITERATIONS
    stacks: dict[str, list[Any]] = {output.name: [] for output in loop.outputs if output.stack}
    for iteration in range(most + 1):
        here: Values = dict(state)
        goes_on = loop.condition is None or bool(np.all(_at(loop.condition, here, around)))
        if iteration == most or not goes_on:
            break
        for name, (source, axis) in loop.iterators.items():
            here[name] = np.take(around[source], iteration, axis)
        for layer in loop.body:
            _run_layer(layer, around, here)
        for output in loop.outputs:
            if output.stack:
                stacks[output.name].append(_at(output.source, here, around))
        chosen = here if iteration == whole else {name: here[name] for name in keep if name in here}
        result.iterations.append(chosen)
        state = {name: _at(following, here, around) for name, (_, following) in loop.state.items()}
    for output in loop.outputs:
        if output.stack:
            taken = stacks[output.name][::-1] if output.reverse else stacks[output.name]
            around[output.name] = np.stack(taken, output.axis)
        else:
            around[output.name] = _at(output.source, state, around)


def _at(name: str, here: Values, around: Values) -> Any:
    return here[name] if name in here else around[name]
