"""A model on a device: what it takes, and how fast a token can be at each depth.

A time is a limit: the larger of a token's bytes over the rate of reading and its multiplications over the rate of
multiplying. No implementation is faster; how near one comes is measured by `mythos bench`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from mythos_export.errors import PlanError
from mythos_export.plan.devices import Device
from mythos_export.plan.models import Model

PRECISIONS = ("fp32", "fp16", "int8", "fp8", "int4")
# Bytes of a weight that is rounded, and of one that is kept. Block-wise formats have a float16 scale for every 32
# weights; fp8 has one for a row, which is not counted.
_ROUNDED = {"fp32": 4.0, "fp16": 2.0, "fp8": 1.0, "int8": 1 + 2 / 32, "int4": 0.5 + 2 / 32}
_KEPT = {"fp32": 4.0, "fp16": 2.0, "fp8": 4.0, "int8": 4.0, "int4": 4.0, "mixed": 4.0}
_SCALE = 2.0  # bytes of a scale of an int8 cache line
LAGGING = 128  # as `mythos serve` has it: positions that may lag (--max-lag), and a chunk
USABLE = 0.9  # of a device's memory: the rest is its system's, and the activations'


@dataclass(frozen=True)
class Need:
    """What a model takes at a precision.

    Attributes:
        weights: bytes, on the disk and in memory.
        fixed, loop: bytes that one token reads around the loop (the head too), and in each loop.
        fixed_flops, loop_flops: multiplications and additions of one token, likewise, without attention.
        cache_around, cache_loop: bytes that a token leaves in the cache: around the loop, and per depth that it ran.
        attended_flops: of attention, per cached position: around the loop, and per loop.
    """

    precision: str
    weights: float
    fixed: float
    loop: float
    fixed_flops: float
    loop_flops: float
    cache_around: float
    cache_loop: float
    attended_flops: tuple[float, float]

    def cache(self, context: int, depth: float) -> float:
        """Bytes of a sequence whose tokens ran so many loops each."""
        return context * (self.cache_around + depth * self.cache_loop)

    def bytes(self, depth: float, context: int = 0) -> float:
        """That one token reads."""
        return self.fixed + depth * self.loop + self.cache(context, depth)

    def flops(self, depth: float, context: int = 0) -> float:
        """Of one token."""
        around, inside = self.attended_flops
        return self.fixed_flops + depth * self.loop_flops + context * (around + depth * inside)


def need(model: Model, precision: str) -> Need:
    """What a model takes.

    Raises:
        PlanError: it has no int8 caches at this precision.
    """
    if model.int8_cache and precision == "fp16":
        raise PlanError(
            "there are no int8 caches at fp16, whose caches are float16: leave --cache out, or plan another"
        )
    stored = precision.removesuffix("a8")  # int4a8 is stored as int4 is
    kept = _KEPT[stored]
    rounded = _ROUNDED[stored] if stored in _ROUNDED else _mean(model, kept)

    def of(read: tuple[float, float]) -> float:
        return read[0] * rounded + read[1] * kept

    table, around, loop, expert = (model.read(place) for place in ("table", "around", "loop", "expert"))
    line = model.width * (2.0 if precision == "fp16" else 4.0)
    if model.int8_cache:
        line = model.width + _SCALE * model.scales
    active = sum(loop) + sum(expert)
    return Need(
        precision,
        sum(part.rounded * rounded + part.kept * kept for part in model.parts),
        of(table) + of(around) + model.head * rounded,
        of(loop) + of(expert),
        2.0 * (sum(around) + model.head),
        2.0 * active,
        model.around * line,
        model.inside * line,
        (2.0 * model.around * model.attended, 2.0 * model.inside * model.attended),
    )


def _mean(model: Model, kept: float) -> float:
    """Bytes of a weight of mixed formats, by the file that they are in."""
    if model.stored is None:
        raise PlanError(f"{model.name} has mixed formats, and no weights.safetensors that would tell their size")
    return (model.stored - kept * sum(part.kept for part in model.parts)) / sum(part.rounded for part in model.parts)


@dataclass(frozen=True)
class Estimate:
    """A model at a precision on a device.

    Attributes:
        seconds: by depth, 1 to `depths`, the least that one token takes after `context` others, on one device; of what
            does not fit one, on as many as it needs, each reading its part at the same time.
        bound: what binds at the trained depth, "reading" or "multiplying".
        cache, states: bytes of all sequences, every loop as trained; and of the states of those positions that lag.
        fits: whether weights, cache and states fit one device; `devices`: how many they fit on.
        shard: how to spread it, in words; None where one is enough.
    """

    need: Need
    context: int
    batch: int
    cache: float
    states: float
    seconds: tuple[float, ...]
    bound: str
    fits: bool
    devices: int
    shard: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def most_lagging(model: Model, context: int) -> int:
    """Positions of a sequence that may have a state at a time.

    Without layers behind the loop a prompt waits at the first depth, all of it.
    """
    return min(context, LAGGING) if model.behind else context


def states(model: Model, sequences: int, context: int) -> float:
    """Bytes of the states that so many sequences may need at a time, beside their caches."""
    return sequences * most_lagging(model, context) * model.state


def estimate(model: Model, precision: str, device: Device, context: int, batch: int, depths: int) -> Estimate:
    """One row of a plan."""
    wanted = need(model, precision)
    cache, lagging = batch * wanted.cache(context, model.loops), states(model, batch, context)
    room = USABLE * device.memory
    devices = max(1, math.ceil((wanted.weights + cache + lagging) / room))

    def least(depth: int) -> tuple[float, float]:
        reading = wanted.bytes(depth, context) / (device.read * devices)
        return reading, wanted.flops(depth, context) / (device.multiply * devices)

    times = [least(depth) for depth in range(1, depths + 1)]
    reading, multiplying = least(model.loops)
    return Estimate(
        wanted,
        context,
        batch,
        cache,
        lagging,
        tuple(max(each) for each in times),
        "reading" if reading >= multiplying else "multiplying",
        devices == 1,
        devices,
        None if devices == 1 else _shard(model, wanted, device, devices, cache),
    )


def _shard(model: Model, wanted: Need, device: Device, devices: int, cache: float) -> str:
    """Where most of the bytes are decides."""
    experts = sum(part.rounded for part in model.parts if part.place == "expert")
    where = f"{devices} devices" + ("" if devices <= device.count else f" ({device.name} has {device.count})")
    if cache > wanted.weights:
        return f"the cache over {where}, by sequences or heads: it is larger than the weights"
    if model.experts and experts > model.parameters / 2:
        each = math.ceil(model.experts / devices)
        return f"the {model.experts} experts over {where}, at most {each} each, and every other matrix by rows"
    return f"each matrix over {where}, by rows: the layers of the loop run at every depth, and no device may wait"
