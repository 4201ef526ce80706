"""What the cases of a verification cover, measured on the cases themselves, and the boundaries that they have to hit.

    boundaries = boundaries_of(spec, cuts())
    rows = coverage(cases, boundaries)           # one a parameter: its range, what was hit, what was missed

A boundary is where what runs takes another path: a block of keys, a tile's height, the last position, the first loop
beyond the trained ones. They are settled when the cases are made, and stay with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mythos_export.kernels.library import Cuts
from mythos_export.verify.cases import Case
from mythos_export.verify.trace import halting
from mythos_runtime.row_ports import PAGE
from mythos_runtime.spec import LoopSpec

Value = int | str
Boundaries = Mapping[str, Sequence[Value]]
"""By parameter, what some case has to have."""

# Parameters whose values depend on the weights: some cannot be reached, and say so instead of failing.
LEFT, CHOSEN = "loop left early after", "chosen"
# Or too large to be asked everywhere: an engine's own machine has to.
BEYOND = "beyond what is asked:"
_INEXACT = (257, 2049, 65537, (1 << 24) + 1)
"""Positions that bfloat16, float16, 16 bits and float32 do not hold."""
DEEP = "far beyond the trained depth"  # a case that is judged by its own tolerances, too: by those of many executions
_MOST_FULL = 256  # positions of a cache that a case fills
_MOST_PAST = 4 << 20  # bytes of a past that a case may bring along to have a full cache
_MOST_LOGITS = 1 << 22  # of a case at the end of a profile


@dataclass(frozen=True)
class Covered:
    """A parameter over all cases.

    Attributes:
        least, most: its range, where it is a number.
        hit, missed: of its boundaries.
        sure: whether a missed one is a failure; else it depends on the weights.
    """

    parameter: str
    least: int | None
    most: int | None
    hit: tuple[Value, ...]
    missed: tuple[Value, ...]
    sure: bool


Profiles = Mapping[str, Mapping[str, tuple[int, int]]]
"""What shapes an engine was built for: by profile and size (batch, tokens, capacity, depths), from and to."""


def boundaries_of(
    spec: LoopSpec, cuts: Cuts, choices: Mapping[str, int], profiles: Profiles | None = None
) -> dict[str, list[Value]]:
    """Those of a model, of the kernels and of the engine that run it; `choices` says of how many each choice of the
    trace is made."""
    longest, trained, keys = spec.max_seq_len, spec.trained_loops, cuts.keys
    heights = {size for tile in cuts.heights for size in (tile - 1, tile, tile + 1) if size > 0}
    found: dict[str, list[Value]] = {
        "rows of a call": list(sorted(heights)),
        "batch": [1, 2, "more than 4"],
        "tokens": [1, *sizes_within((keys + 1, 2 * keys + 1), longest)],
        "past of a row": [0, *past_lengths(spec, cuts)],
        "keys of a token": [1, *sizes_within((keys, keys + 1, 2 * keys + 1), longest)],
        "position": [0, *positions_of(spec)],
        "max_loops": [0, 1, 2, trained, deepest(spec)],
        "loop depths of the cache": ["as many as max_loops", "more than max_loops"],
        "behind a row's past": ["NaN", "nothing"] if longest > 1 else ["nothing"],
        "padding": ["none"],
        "early exit": ["on", "off"],
    }
    if longest > 3:
        found["padding"] += [kind + with_past for kind in _PADDING for with_past in ("", ", with a past")]
    if spec.exit.knob("halt_threshold") is not None:
        found["halt_threshold"] = ["below 0", "0", "as trained", "above 1"]
        found[LEFT] = [*exits(spec)]
    found |= {f"{CHOSEN} {name}": list(range(count)) for name, count in choices.items()}
    for name, ranges in (profiles or {}).items():
        for size, ends in ranges.items():
            fits = [end for end in sorted({*ends}) if is_asked(spec, corner(ranges, size, end))]
            found[profile_size(name, size)] = [*fits]
            if len(fits) < len({*ends}):
                found[f"{BEYOND} {profile_size(name, size)}"] = [ends[1]]
    return found


_SIZES = {"B": "batch", "T": "tokens", "P": "capacity", "N": "depths"}


def profile_size(profile: str, size: str) -> str:
    """The parameter of one size of a profile."""
    return f"{size} of the engine's profile {profile}"


def profiles_of(spec: LoopSpec, described: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, tuple[int, int]]]:
    """Profiles by name, as a target's details describe them: of every input its least, usual and largest shape."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for profile in described:
        sizes = found.setdefault(profile["name"], {})
        for port in spec.ports.inputs:
            least, _, most = profile["shapes"][port.name]
            for dim, low, high in zip(port.dims, least, most, strict=True):
                if dim in _SIZES:
                    sizes[_SIZES[dim]] = (low, high)
    return found


def corner(ranges: Mapping[str, tuple[int, int]], size: str, end: int) -> dict[str, int]:
    """The smallest call of a profile with one of its sizes at an end."""
    return {name: low for name, (low, _) in ranges.items()} | {size: end}


def is_asked(spec: LoopSpec, sizes: Mapping[str, int]) -> bool:
    """Whether a call is small enough to be asked of every artifact, on the CPU."""
    logits = sizes["batch"] * sizes["tokens"] * spec.vocab_size
    return (
        logits <= _MOST_LOGITS and _past_bytes(spec, sizes["depths"], sizes["batch"] * sizes["capacity"]) <= _MOST_PAST
    )


def _past_bytes(spec: LoopSpec, depths: int, positions: int) -> int:
    lines = sum(group.slots * group.width * (depths if group.per_loop else 1) for group in spec.caches)
    return lines * positions * 4


def sizes_within(sizes: Iterable[int], most: int) -> list[int]:
    """Sizes that fit, and the largest that does where one does not."""
    return sorted({min(size, most) for size in sizes})


def past_lengths(spec: LoopSpec, cuts: Cuts) -> list[int]:
    """Both sides of one and of two blocks of keys, with room for three tokens behind."""
    keys, room = cuts.keys, spec.max_seq_len - 3
    lengths = (1, keys - 1, keys, keys + 1, 2 * keys - 1, 2 * keys, 2 * keys + 1)
    return [length for length in sizes_within(lengths, room) if length > 0] if room > 0 else []


def positions_of(spec: LoopSpec) -> list[int]:
    """Those behind a page, those that a narrow number does not hold, and the last one."""
    most = spec.max_seq_len - 1
    return sorted({*(at for at in (PAGE - 1, PAGE, *_INEXACT) if at <= most), most})


def far_positions(spec: LoopSpec) -> list[int]:
    """Of these, the ones that a case reaches without the past that would stand before them."""
    full = spec.max_seq_len - 1 if holds_full_cache(spec) else -1
    return [at for at in positions_of(spec) if at > 2 * PAGE and at != full]


def holds_full_cache(spec: LoopSpec) -> bool:
    """Whether a case may bring a past that leaves room for one token only, at two depths."""
    return 2 <= spec.max_seq_len <= _MOST_FULL and _past_bytes(spec, 2, spec.max_seq_len) <= _MOST_PAST


def deepest(spec: LoopSpec) -> int:
    """Loops far beyond the trained ones: more than anything that has a row per trained loop."""
    return max(2 * spec.trained_loops + 1, 17)


def exits(spec: LoopSpec) -> list[int]:
    """Loops after which everybody has halted at once, with more allowed."""
    trained = spec.trained_loops
    return sorted({loop for loop in (1, 2, trained // 2, trained - 1) if 1 <= loop < trained})


_PADDING = ("left", "inner", "right", "whole row")


def coverage(cases: Iterable[Case], boundaries: Boundaries) -> tuple[Covered, ...]:
    """Every parameter over the cases."""
    found: dict[str, set[Value]] = {}
    for case in cases:
        for name, values in (facts(case) | _in_profiles(case, boundaries)).items():
            found.setdefault(name, set()).update(values)
    rows = []
    for name, wanted in boundaries.items():
        values = found.get(name, set())
        numbers = [value for value in values if isinstance(value, int)]
        hit = tuple(value for value in wanted if value in values)
        missed = tuple(value for value in wanted if value not in values)
        sure = not name.startswith((LEFT, CHOSEN, BEYOND))
        rows.append(Covered(name, min(numbers, default=None), max(numbers, default=None), hit, missed, sure))
    return tuple(rows)


def missed(rows: Iterable[Covered]) -> list[str]:
    """What no case has and one has to have, in sentences."""
    return [
        f"no golden case has {row.parameter} {', '.join(map(str, row.missed))}, where what was exported takes another "
        "path; export the model again"
        for row in rows
        if row.sure and row.missed
    ]


def facts(case: Case) -> dict[str, set[Any]]:
    """What a case has, by parameter."""
    spec, real, lengths = case.spec, case.real, case.input("past_lengths")
    batch, tokens = real.shape
    loops, most = int(case.output("loops")), int(case.input("max_loops"))
    pasts = {group.name: case.inputs[spec.ports.of("past", group.name).name] for group in spec.caches}
    depths = next(len(pasts[group.name]) for group in spec.caches if group.per_loop)
    some = real.any(1)
    on = bool(case.input("early_exit"))
    found: dict[str, set[Any]] = {
        "rows of a call": {batch * tokens},
        "batch": {batch} | ({"more than 4"} if batch > 4 else set()),
        "tokens": {tokens},
        "past of a row": {*lengths[some].tolist()},
        "keys of a token": {*(lengths[:, None] + real.cumsum(1))[real].tolist()},
        "position": {*case.input("positions")[real].tolist()},
        "max_loops": {most},
        "loop depths of the cache": {f"{'more than' if depths > max(most, 1) else 'as many as'} max_loops"},
        "behind a row's past": set().union(*(_behind(past, lengths) for past in pasts.values())),
        "padding": set().union(*(_padding(row, length) for row, length in zip(real, lengths, strict=True))),
        "early exit": {"on" if on else "off"},
    }
    knob = spec.exit.knob("halt_threshold")
    if knob is not None:
        threshold = float(case.input("halt_threshold"))
        found["halt_threshold"] = set()
        for name, has in {
            "below 0": threshold < 0,
            "0": threshold == 0,
            "as trained": threshold == np.float32(knob.default),
            "above 1": threshold > 1,
        }.items():
            found["halt_threshold"] |= {name} if has else set()
        if on and loops < most and real.any() and (case.output("depth")[real] == loops).all():
            found[LEFT] = {loops}
    who = halting(spec)
    for tensor in spec.trace:
        if tensor.kind == "choice" and len(case.trace):
            running = np.broadcast_to(real, case.trace[tensor.name].shape[:3]).copy()
            if who is not None:
                running[1:] &= ~case.trace[who.name][:-1]
            found[f"{CHOSEN} {tensor.name}"] = {*np.unique(case.trace[tensor.name][running]).tolist()}
    return found


def _in_profiles(case: Case, boundaries: Boundaries) -> dict[str, set[Any]]:
    """The sizes of a case, of every profile that takes it."""
    past = next(group.name for group in case.spec.caches if group.per_loop)
    shape = case.inputs[case.spec.ports.of("past", past).name].shape
    sizes = {**dict(zip(("batch", "tokens"), case.real.shape, strict=True)), "capacity": shape[-2], "depths": shape[0]}
    found: dict[str, set[Any]] = {}
    for profile in {name.rpartition(" ")[2] for name in boundaries if " of the engine's profile " in name}:
        mine = {size: profile_size(profile, size) for size in sizes}
        ends = {
            size: [*boundaries.get(name, ()), *boundaries.get(f"{BEYOND} {name}", ())] for size, name in mine.items()
        }
        if all(min(map(int, ends[size])) <= value <= max(map(int, ends[size])) for size, value in sizes.items()):
            found |= {name: {sizes[size]} for size, name in mine.items()}
            found |= {f"{BEYOND} {name}": {sizes[size]} for size, name in mine.items()}
    return found


def _behind(past: np.ndarray, lengths: np.ndarray) -> set[Value]:
    """What is behind the rows' lengths in a past [..., B, S, width]."""
    behind = np.arange(past.shape[-2]) >= lengths[:, None]
    if not behind.any():
        return {"nothing"}
    values = past[..., behind, :].astype(np.float32)
    return {"NaN" if np.isnan(values).all() else "zeros"}


def _padding(real: np.ndarray, length: int) -> set[Value]:
    """Where the padding of a row [T] is."""
    at = np.flatnonzero(real)
    kinds: set[Value] = {"whole row"} if not len(at) else set()
    if len(at):
        named = {"left": at[0] > 0, "inner": at[-1] - at[0] >= len(at), "right": at[-1] < len(real) - 1}
        kinds = {name for name, has in named.items() if has} or {"none"}
    return kinds | ({f"{kind}, with a past" for kind in kinds} if length else set())


def spread(row: Covered) -> str:
    """A parameter's range in words."""
    return "" if row.least is None or row.most is None else f"{row.least} to {row.most}"


def share(row: Covered) -> float:
    """Of the boundaries that were hit."""
    return len(row.hit) / max(len(row.hit) + len(row.missed), 1) if row.hit or row.missed else math.nan
