"""Looking inside the loop: a value is given a name, and whoever wants to see it finds it by that name.

    >>> with recording() as seen:
    ...     model(input_ids)
    >>> seen.values["h"][2]              # the state after the third loop

`disturbing` changes what is tapped by what rounding might have: another execution at the same precision.

Nothing is recorded, copied or computed where nobody looks. While torch.export traces, a tap is the operator
`mythos::tap`, an identity that keeps its name in the captured program; lowering names the value after it and drops it.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Recorded:
    """What an eager run showed, one tensor per loop.

    Attributes:
        values: by the tap's name.
        scores: by choice (`experts`), [B, T, E]: the numbers by whose order it was decided.
        margins: by decision, [B, T]: how far it was from falling otherwise; inf where there was nothing to decide.
    """

    values: dict[str, list[Tensor]] = field(default_factory=dict)
    scores: dict[str, list[Tensor]] = field(default_factory=dict)
    margins: dict[str, list[Tensor]] = field(default_factory=dict)


_recorder: contextvars.ContextVar[Recorded | None] = contextvars.ContextVar("recorder", default=None)


@contextlib.contextmanager
def recording() -> Iterator[Recorded]:
    """Record what the models that run inside show."""
    seen = Recorded()
    token = _recorder.set(seen)
    try:
        yield seen
    finally:
        _recorder.reset(token)


_disturber: contextvars.ContextVar[torch.Generator | None] = contextvars.ContextVar("disturber", default=None)


@contextlib.contextmanager
def disturbing(seed: int) -> Iterator[None]:
    """Every floating-point number that the models inside tap is, by chance, up to one unit in the last place larger or
    smaller: as if what made it had been rounded otherwise."""
    token = _disturber.set(torch.Generator().manual_seed(seed))
    try:
        yield
    finally:
        _disturber.reset(token)


def tap(x: Tensor, name: str) -> Tensor:
    """x itself, shown under a name. To be used on what comes back, so that the name stays with the value."""
    if torch.compiler.is_exporting():
        return torch.ops.mythos.tap(x, name)  # type: ignore[no-any-return]
    by_chance = _disturber.get()
    if by_chance is not None and x.is_floating_point():
        moved = torch.randint(-1, 2, x.shape, generator=by_chance) * (torch.finfo(x.dtype).eps / 2)
        x = (x.double() * (1 + moved.double().to(x.device))).to(x.dtype)
    seen = _recorder.get()
    if seen is not None:
        seen.values.setdefault(name, []).append(x)
    return x


def chosen(name: str, scores: Tensor, count: int) -> None:
    """Show by which scores [B, T, E] a choice of the `count` largest fell. Eager only: a program shows the choice."""
    seen = _watching()
    if seen is not None:
        ranked = scores.sort(-1, descending=True).values
        nothing_left = torch.full(scores.shape[:-1], torch.inf, dtype=scores.dtype, device=scores.device)
        margin = ranked[..., count - 1] - ranked[..., count] if scores.shape[-1] > count else nothing_left
        seen.scores.setdefault(name, []).append(scores)
        seen.margins.setdefault(name, []).append(margin)


def decided(name: str, margin: Callable[[], Tensor]) -> None:
    """Show how far a yes-or-no decision was from falling otherwise, [B, T]. Eager only."""
    seen = _watching()
    if seen is not None:
        seen.margins.setdefault(name, []).append(margin())


def _watching() -> Recorded | None:
    return None if torch.compiler.is_exporting() else _recorder.get()
