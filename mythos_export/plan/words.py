"""A plan in words and rows, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence

from mythos_export.plan.devices import Device
from mythos_export.plan.estimate import LAGGING, Estimate, Need
from mythos_export.plan.models import Model
from mythos_export.report.format import seconds, size

MODEL_COLUMNS = ["", ">bundle", ">read a token", ">in each loop", ">FLOP a token", ">in each loop", ">cache a token"]
ESTIMATE_COLUMNS = ["", ">weights", ">cache", ">states", "fits", ">1 loop", ">half", ">as trained", "bound by"]


def count(value: float) -> str:
    """12.3 M, 1.06 B, 1.1 T."""
    for factor, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f}"


def facts(model: Model, device: Device, estimates: Sequence[Estimate]) -> list[tuple[str, str]]:
    """The model and the device."""
    some = estimates[0]
    experts = f"; {model.chosen} of {model.experts} experts" if model.experts else ""
    how = "measured just now" if device.measured else "by its maker's figures"
    multiply, boxes = count(device.multiply), f"{device.count} x " if device.count > 1 else ""
    told = [
        ("model", f"{model.name} ({model.family}), {count(model.parameters)} weights"),
        ("a loop reads", f"{count(model.active_per_loop)} weights{experts}; trained with {model.loops} loops"),
        ("device", f"{device.name}: {boxes}{size(device.memory)}, {size(device.read)}/s, {multiply}FLOP/s, {how}"),
        ("asked for", f"{some.context} tokens of context, {some.batch} sequence{'s' if some.batch > 1 else ''}"),
    ]
    told.append(("states", _states(model)))
    if model.int8_cache:
        told.append(("caches", f"lines of {model.width} values in int8, with {model.scales} scales"))
    return told + [("note", note) for note in model.notes]


def _states(model: Model) -> str:
    if not model.state:
        return "none: the bundle has no row graphs, and its loops run in lock-step"
    each = f"{size(model.state)} of a position that lags"
    if not model.behind:
        return f"{each}; every token of a prompt may, as no layers behind the loop ask for it earlier"
    return f"{each}, at most {LAGGING} of a sequence: as mythos serve has it, without another --max-lag"


def model_rows(model: Model, needs: Sequence[Need]) -> list[list[str]]:
    """A row a precision: what it takes anywhere, at the trained depth."""
    depth = model.loops
    return [
        [
            each.precision,
            size(each.weights),
            size(each.bytes(depth)),
            size(each.loop),
            count(each.flops(depth)),
            count(each.loop_flops),
            size(each.cache_around + depth * each.cache_loop),
        ]
        for each in needs
    ]


def estimate_rows(model: Model, estimates: Sequence[Estimate]) -> list[list[str]]:
    """A row a precision: on the device."""
    rows = []
    for each in estimates:
        half, trained = max(model.loops // 2, 1), min(model.loops, len(each.seconds))
        times = (each.seconds[0], each.seconds[half - 1], each.seconds[trained - 1])
        fits = "yes" if each.fits else f"on {each.devices}"
        held = map(size, (each.need.weights, each.cache, each.states))
        rows.append([each.need.precision, *held, fits, *map(seconds, times), each.bound])
    return rows


NOTE = (
    "Times are limits: a token's bytes at the rate of reading, or its arithmetic at the rate of multiplying. The "
    "cache is that of every loop as trained; with exact lazy depth a token leaves entries at depths that it ran, and "
    "has a state until it has run all."
)
