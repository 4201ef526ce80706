"""How deep the positions of a request may go, and how many drafts it takes."""

from __future__ import annotations

import numpy as np

from mythos_runtime.engine.request import Round, Work
from mythos_runtime.engine.speculation import Speculation, Speed
from mythos_runtime.row_ports import STEP


def budgeted_cap(running: Work, speed: Speed, rows: int) -> int | None:
    """The most loops of the position that enters, by the budget, where calls have so many rows."""
    budget, spent = running.budget, running.depth
    allowed: list[float] = []
    if budget.loops_per_token is not None:
        allowed.append(budget.loops_per_token * (len(spent) + 1) - sum(spent))
    if budget.latency_ms is not None:
        step = speed.of(STEP, rows)  # a call is waited for as a whole, whoever is in it
        if step > 0:
            allowed.append((budget.latency_ms / 1e3 - speed.per_token(0)) / step)
    if not allowed:
        return None
    return max(1, int(min(*allowed, running.limit)))


def caps_of(running: Work, first: int, count: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The caps of positions that enter, and whether they are forced: given depths, and those that a budget has set.

    Both are set again where a request is computed anew.
    """
    request = running.request
    if not request.depths and not running.budget:
        return None, None
    caps, forced = np.full(count, running.limit, np.int32), np.zeros(count, bool)
    behind = len(request.prompt) - 1  # this position's answer is the first token
    for position in range(max(first, behind), first + count):
        token, at = position - behind, position - first
        if token < len(running.tokens):
            forced[at] = token < len(request.depths) or running.capped[token]
            caps[at] = running.depth[token] if forced[at] else running.limit
        elif token < len(request.depths):
            caps[at], forced[at] = request.depths[token], True
        elif running.cap is not None:
            caps[at] = running.cap
    return caps, forced


def plan_round(running: Work, speculation: Speculation | None, sharing: int, room: int) -> Round | None:
    """The drafts of the round that begins.

    Args:
        sharing: sequences in the calls. room: the most drafts that fit one.
    """
    request = running.request
    if speculation is None or running.budget or request.policy == "share" or running.limit < 2:
        return None
    left = request.max_new_tokens - len(running.tokens) - 1
    depth, length = speculation.choose(sharing, min(left, room))
    if not length or depth >= running.limit:
        return None
    assert running.sequence is not None
    return Round(running.sequence.length, depth, length, running.sampler.copy())
