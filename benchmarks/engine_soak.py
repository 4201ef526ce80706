"""The engine for a long time: `python -m benchmarks.engine_soak --tokens 100000` (`make soak`).

Requests of many kinds come, are cancelled, share prefixes, wait for memory and are sent back. It fails where an answer
is not the one that its request gets alone, where a page is not given back, or where what is allocated grows. What is
resident grows a little longer, and ever less: calls of many sizes leave holes in the C library's heap. The last line of
stdout is a JSON document.
"""

from __future__ import annotations

import ctypes
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

from benchmarks.serving.__main__ import bundle_of
from benchmarks.serving.mixes import MIXES
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.opening import open_engine
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.request import Budget, Request, Running
from mythos_runtime.engine.sequence import Policy
from mythos_runtime.sampling import SamplingOptions
from mythos_runtime.session import Options

KNOWN, RUNNING, PREFIXES = 96, 16, 4
CANCELLED = 0.1  # of the requests
_SAMPLES = 50  # of the memory
_WARM = 0.2  # of the tokens, in which it may grow: pages are touched, the sizes of calls met and bound
_GROWTH = 0.01  # behind them: of what is allocated, what is noise
_HOLES = 0.25  # and of what is resident


@dataclass
class Soak:
    """What happened.

    Attributes:
        ended: requests by how they ended.
        allocated: bytes that the C library has given, over the run; none where it does not say.
        resident: bytes of the process that no file backs.
    """

    tokens: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    allocated: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def requests(asks: Iterator[list[int]], count: int = KNOWN, most_tokens: int = 120) -> list[Request]:
    """Of every kind that gives the same whatever runs beside it, over prompts some of which begin alike."""
    draw = random.Random(3)
    beginnings = [next(asks) for _ in range(4)]
    made = []
    for number in range(count):
        prompt = next(asks)
        if number % 3 == 0:
            prompt = [*beginnings[number % 4], *prompt[: draw.randrange(1, 16)]]
        policy: Policy = "full" if number % 8 == 5 else "lazy"
        made.append(
            Request(
                prompt,
                draw.randrange(8, most_tokens),
                max_loops=draw.choice([None, None, None, 2, 9]),
                halt_threshold=draw.choice([None, None, 0.5, 1.1]),
                policy=policy,
                sampling=SamplingOptions(temperature=draw.choice([0.0, 0.8]), seed=number),
                budget=Budget(loops_per_token=2.5) if number % 16 == 7 else None,
            )
        )
    return made


def alone(engine: Engine, asked: list[Request]) -> list[tuple[list[int], list[int]]]:
    """Tokens and depths of each, with nobody beside it."""
    answers = []
    for request in asked:
        running = engine.submit(request)
        while engine.busy:
            engine.tick()
        answers.append((running.tokens, running.depth))
    return answers


class _Mallinfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "mapped", "usmblks", "fsmblks", "used", "free", "keepcost")
    )


def allocated() -> int | None:
    """Bytes that this process's C library has given and not taken back; None where it is not glibc."""
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is None:
        return None
    function.restype = _Mallinfo
    info = function()
    return int(info.used + info.mapped)


def resident() -> int:
    """Bytes of this process that no file backs."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared)


def run(engine: Engine, asked: list[Request], answers: list[tuple[list[int], list[int]]], tokens: int) -> Soak:
    """Mixed requests until so many tokens were generated; the engine is closed then."""
    soak, draw = Soak(), random.Random(5)
    live: dict[Running, tuple[int, int | None]] = {}  # which request it is, and behind how many tokens it is cancelled
    while soak.tokens < tokens or engine.busy:
        while soak.tokens < tokens and len(live) < 2 * RUNNING:
            number = draw.randrange(len(asked))
            leaves = draw.randrange(1, 40) if draw.random() < CANCELLED else None
            live[engine.submit(asked[number])] = number, leaves
        soak.tokens += len(engine.tick())
        for running, (number, leaves) in list(live.items()):
            if leaves is not None and len(running.tokens) >= leaves:
                engine.cancel(running)
            if running.finished is None:
                continue
            del live[running]
            soak.ended[running.finished] += 1
            expected = tuple(part[: len(running.tokens)] for part in answers[number])
            if (running.tokens, running.depth) != expected:
                soak.faults.append(f"request {number} came to {running.tokens} {running.depth}, alone to {expected}")
        if soak.tokens >= len(soak.resident) * tokens / _SAMPLES:
            soak.resident.append(resident())
            given = allocated()
            soak.allocated += [] if given is None else [given]
    engine.close()
    if left := held(engine):
        soak.faults.append(f"{left} pages and lines of state were not given back")
    return soak


def growth(memory: list[int]) -> float:
    """What a line through the sizes behind the warm-up rises by, as a share of them."""
    late = np.array(memory[round(_WARM * len(memory)) :], float)
    slope, start = np.polyfit(np.arange(len(late)), late, 1)
    return float(slope * (len(late) - 1) / start)


def held(engine: Engine) -> int:
    """Pages and lines that somebody holds."""
    core = engine.core
    return core.loop.held + (core.around.held if core.around else 0) + core.states.lines - core.states.free


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--tokens", type=click.IntRange(min=1), default=100_000, show_default=True)
@click.option("--bundles", type=click.Path(path_type=Path), default=Path("build/serving"), show_default=True)
@click.option("--memory", default=8, show_default=True, help="MiB of the engine: little, so that requests wait.")
@click.option("--threads", default=1, show_default=True)
def main(tokens: int, bundles: Path, memory: int, threads: int) -> None:
    bundle = bundle_of("text", bundles)
    engine = open_engine(
        bundle,
        EngineOptions(memory=memory << 20, max_loops=9, most_running=RUNNING, prefixes=PREFIXES, speculate="auto"),
        options=Options(threads=threads, engine="python"),
    )
    assert isinstance(engine, Engine)  # whose pages can be counted
    asked = requests(MIXES[0].asks(3))
    answers = alone(engine, asked)
    engine.prefixes.clear()
    started = time.perf_counter()
    soak = run(engine, asked, answers, tokens)
    seconds = time.perf_counter() - started
    grown = {
        "allocated": growth(soak.allocated) if soak.allocated else None,
        "resident": growth(soak.resident),
    }
    for name, most in (("allocated", _GROWTH), ("resident", _HOLES)):
        if (grown[name] or 0) > most:
            soak.faults.append(f"what is {name} grew by {100 * (grown[name] or 0):.1f}%")
    for fault in soak.faults[:20]:
        click.echo(fault, err=True)
    speculation = engine.speculation
    document: dict[str, Any] = {
        "tokens": soak.tokens,
        "seconds": seconds,
        "ended": dict(soak.ended),
        "drafts": [speculation.drafted, speculation.accepted] if speculation else None,
        "steps": engine.core.steps,
        "rows": engine.core.rows,
        "engine_memory": engine.core.memory.bytes,
        "growth": grown,
        "allocated": soak.allocated,
        "resident": soak.resident,
        "with_files_at_most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "faults": len(soak.faults),
    }
    click.echo(json.dumps(document))
    sys.exit(1 if soak.faults else 0)


if __name__ == "__main__":
    main()
