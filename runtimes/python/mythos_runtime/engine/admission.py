"""Whether a request can be run at all: what this model can do, and what this memory holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mythos_runtime.batch import integer, number, split_prompts
from mythos_runtime.engine.request import Budget, Request, Running, Work
from mythos_runtime.engine.sequence import POLICIES
from mythos_runtime.errors import CapacityError, RequestError
from mythos_runtime.knobs import halt_threshold
from mythos_runtime.row_ports import MOST_LOOPS, PAGE
from mythos_runtime.sampling import Sampler
from mythos_runtime.spec import LoopSpec

if TYPE_CHECKING:
    from mythos_runtime.engine.core import Core


def admit(request: Request, core: Core, usual: Budget) -> Work:
    """A request as it runs, with what it leaves open filled in.

    Raises:
        RequestError: it asks for what this model cannot do.
        CapacityError: its tokens do not fit the model, or all the memory.
    """
    spec = core.graphs.spec
    asked = check(request, spec, usual)
    _check_room(check_length(request, spec), asked.limit, core)
    sampler = Sampler(request.sampling, request.row, spec.vocab_size, np.asarray(request.prompt, np.int64))
    return Work(request, asked.limit, asked.threshold, asked.budget, sampler=sampler)


def check(request: Request, spec: LoopSpec, usual: Budget) -> Running:
    """A request as it would run, whatever the memory. Raises RequestError where it asks for what this model cannot
    do."""
    split_prompts([request.prompt], spec.vocab_size)
    integer(request.max_new_tokens, "max_new_tokens", 1)
    limit = spec.trained_loops if request.max_loops is None else request.max_loops
    integer(limit, "max_loops", 0, MOST_LOOPS)
    if request.policy not in POLICIES:
        raise RequestError(f"there is no cache policy {request.policy!r}; the policies are {', '.join(POLICIES)}")
    if any(not sequence for sequence in request.stop):
        raise RequestError("a stop sequence is empty; it should hold at least one id")
    threshold = halt_threshold(spec, request.halt_threshold)
    budget = usual if request.budget is None else request.budget
    check_budget(budget, spec)
    if request.depths:
        _check_halts("depths cannot be given", spec)
        for depth in request.depths:
            integer(depth, "depths", min(limit, 1), limit)
    return Running(request, limit, threshold, budget)


def check_budget(budget: Budget, spec: LoopSpec) -> None:
    """RequestError where a budget is none, or this model cannot keep it."""
    if budget:
        _check_halts("a budget cannot be kept", spec)
    if budget.loops_per_token is not None and number(budget.loops_per_token, "loops_per_token") < 1:
        raise RequestError(f"loops_per_token should be at least 1, found {budget.loops_per_token}")
    if budget.latency_ms is not None and number(budget.latency_ms, "latency_ms") <= 0:
        raise RequestError(f"latency_ms should be above 0, found {budget.latency_ms}")


def check_length(request: Request, spec: LoopSpec) -> int:
    """The positions of a request. Raises CapacityError where the model takes fewer."""
    positions, most = len(request.prompt) + request.max_new_tokens - 1, spec.max_seq_len
    if positions > most:
        raise CapacityError(f"a request of {positions} positions exceeds the {most} that this model takes")
    return positions


def _check_room(positions: int, limit: int, core: Core) -> None:
    blocks = -(-positions // PAGE)
    fits = core.around is None or blocks <= core.around.pages
    if not fits or blocks * limit > core.loop.pages:
        raise CapacityError(
            f"a request of {positions} positions at {limit} loops does not fit the engine's memory by itself: give it "
            "more, or ask for less"
        )


def _check_halts(what: str, spec: LoopSpec) -> None:
    if spec.exit.knob("halt_threshold") is None:
        raise RequestError(f"{what}: no position of this model halts by itself; give max_loops instead")
