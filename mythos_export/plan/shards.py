"""A model whose experts are in shards, a device each, and a trunk on one more: the least time of a token.

A loop is a round trip that nothing shortens: the trunk's norms, attention, router and shared experts; the rows to the
shards that have their experts; those; what each chosen expert puts out back to the trunk. Rows are float32, D values
each; of every row K of them come back, as the trunk sums in one fixed order. All of it passes the trunk's one link.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mythos_export.errors import PlanError
from mythos_export.plan.devices import Device
from mythos_export.plan.estimate import USABLE, Need, need, states
from mythos_export.plan.models import Model
from mythos_export.report.format import seconds, size

_VALUE = 4.0  # bytes of a value on the way
_EXPERTS: tuple[str, ...] = ("expert",)


@dataclass(frozen=True)
class Network:
    """A link, the same both ways at once.

    Attributes:
        bytes: a second, each way. trip: seconds there and back, of a message that is small.
    """

    name: str
    bytes: float
    trip: float


NETWORKS = {
    each.name: each
    for each in (
        Network("1gbe", 1e9 / 8, 200e-6),
        Network("10gbe", 10e9 / 8, 60e-6),
        Network("25gbe", 25e9 / 8, 50e-6),
        Network("100gbe", 100e9 / 8, 40e-6),
        Network("400gbe", 400e9 / 8, 30e-6),
        Network("loopback", 5e9, 40e-6),
    )
}
"""Rates as they are sold; round trips of TCP between processes in one room, rounded from experience: give your own."""


def find_network(name: str) -> Network:
    """A preset, or GB_PER_SECOND:MICROSECONDS. Raises PlanError."""
    if name.lower() in NETWORKS:
        return NETWORKS[name.lower()]
    found = re.fullmatch(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", name)
    if found is None or not float(found[1]):
        raise PlanError(
            f"there is no network {name!r}; there are {', '.join(NETWORKS)}, or give GB per second and microseconds of "
            "a round trip, as 12.5:40"
        )
    return Network(name, float(found[1]) * 1e9, float(found[2]) * 1e-6)


@dataclass(frozen=True)
class Sharded:
    """A model at a precision, its experts in shards.

    Attributes:
        trunk, shard: bytes of weights, of the trunk and of the largest shard.
        fits: whether each of them fits a device of its own, the trunk with the cache.
        rows: that run a loop together.
        loop: seconds of a loop, at least, and of that: `computing` in the trunk, `experts`, `network`.
        token: seconds of a token at the trained depth, at least; so many rows get one each.
        bound: "trunk", "experts" or "network": what takes the most of a loop.
        traffic: bytes that a row sends and receives in a loop.
    """

    precision: str
    shards: int
    trunk: float
    shard: float
    fits: bool
    rows: int
    loop: float
    computing: float
    experts: float
    network: float
    token: float
    bound: str
    traffic: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def sharded(
    model: Model, precision: str, device: Device, network: Network, shards: int, rows: int, context: int
) -> Sharded:
    """One row of a plan.

    Raises:
        PlanError: the model has no experts, or fewer than shards.
    """
    if not 1 <= shards <= model.experts:
        raise PlanError(f"{model.name} has {model.experts} experts: they cannot be in {shards} shards")
    whole = need(model, precision)
    alone = need(replace(model, parts=tuple(part for part in model.parts if part.place in _EXPERTS)), precision)
    trunk = need(replace(model, parts=tuple(part for part in model.parts if part.place not in _EXPERTS)), precision)
    most = math.ceil(model.experts / shards)
    shard = alone.weights * most / model.experts
    cache = rows * whole.cache(context, model.loops) + states(model, rows, context)
    computing = _time(device, trunk.loop + rows * context * whole.cache_loop, rows, trunk, context)
    # Of a shard's experts those that some row chose are read; the busiest shard has at least its even share of them.
    each = alone.weights / model.experts
    read = max(most * (1 - (1 - model.chosen / model.experts) ** rows), math.ceil(model.chosen / shards))
    pairs = math.ceil(rows * model.chosen / shards)
    flops = alone.loop_flops / model.chosen
    experts = max(each * read / device.read, pairs * flops / device.multiply)
    touched = shards * (1 - (1 - 1 / shards) ** model.chosen)
    sent, received = _VALUE * model.dim * touched, _VALUE * model.dim * model.chosen
    passing = network.trip + rows * (sent + received) / network.bytes
    loop = computing + experts + passing
    around = _around(device, whole, rows, context)
    parts = {"trunk": computing, "experts": experts, "network": passing}
    return Sharded(
        precision,
        shards,
        trunk.weights,
        shard,
        trunk.weights + cache <= USABLE * device.memory and shard <= USABLE * device.memory,
        rows,
        loop,
        computing,
        experts,
        passing,
        around + model.loops * loop,
        max(parts, key=lambda name: parts[name]),
        (sent, received),
    )


SHARDED_COLUMNS = ["", ">trunk", ">a shard", "fits", ">in the trunk", ">experts", ">network", ">a token", "most in"]


def sharded_rows(estimates: Sequence[Sharded]) -> list[list[str]]:
    """A row a precision."""
    return [
        [
            each.precision,
            size(each.trunk),
            size(each.shard),
            "yes" if each.fits else "no",
            *map(seconds, (each.computing, each.experts, each.network, each.token)),
            each.bound,
        ]
        for each in estimates
    ]


def sharded_note(device: Device, network: Network, one: Sharded) -> str:
    """What the rows rest on."""
    sent, received = one.traffic
    return (
        f"Experts in {one.shards} shards, each on a {device.name} of its own, the trunk on one more; {network.name}, "
        f"{size(network.bytes)}/s each way and {seconds(network.trip)} there and back. {one.rows} "
        f"row{'s' if one.rows > 1 else ''} at a time; in a loop a row sends {size(sent)} and gets {size(received)}. "
        "Times are limits, of a loop but for the token's, which runs all as trained."
    )


def _time(device: Device, read: float, rows: int, trunk: Need, context: int) -> float:
    """Of the trunk's part of a loop, for so many rows."""
    attended = trunk.attended_flops[1] * context
    return max(read / device.read, rows * (trunk.loop_flops + attended) / device.multiply)


def _around(device: Device, whole: Need, rows: int, context: int) -> float:
    """What stands around the loop."""
    read = whole.fixed + rows * context * whole.cache_around
    flops = rows * (whole.fixed_flops + context * whole.attended_flops[0])
    return max(read / device.read, flops / device.multiply)
