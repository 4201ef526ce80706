"""The bundle in a process of its own: `python -m benchmarks.real_size.ours BUNDLE THREADS`.

For every line of stdin a round, a line of JSON: the reading rate of memory, milliseconds of a decoded token at every
depth, and with exits: the engine, where a token leaves when its gate says so. Wall time and CPU time of all threads:
on a busy machine the one of a single thread is the one that means something.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from mythos_export.bench.resources import peak_memory
from mythos_runtime import load
from mythos_runtime.engine import Request, open_engine
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.session import Options

PROMPT, TOKENS, EXITS = list(range(300, 316)), 8, 0.7
READ = 768 << 20  # bytes, more than any cache


def reading_rate() -> tuple[float, float]:
    """Bytes per second of a sum over memory, the best of a few: by the wall clock, and by CPU time."""
    memory = torch.ones(READ // 4)
    wall, cpu = 0.0, 0.0
    for _ in range(4):
        started, used = time.perf_counter(), time.process_time()
        memory.sum()
        wall = max(wall, READ / (time.perf_counter() - started))
        cpu = max(cpu, READ / (time.process_time() - used))
    return wall, cpu


def per_token(moments: list[tuple[float, float]]) -> dict[str, float]:
    """Milliseconds between moments (wall, CPU): the median, and the least of the wall clock."""
    wall, cpu = ([1e3 * (b[i] - a[i]) for a, b in itertools.pairwise(moments)] for i in range(2))
    return {"wall": statistics.median(wall), "least": min(wall), "cpu": statistics.median(cpu)}


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def main() -> None:
    bundle, threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    model = load(bundle, threads=threads, verify="sizes")
    core = open_engine(bundle, EngineOptions(memory=256 << 20), options=Options(threads=threads))
    for _ in sys.stdin:
        round_: dict[str, Any] = {"read": [reading_rate()], "depth": {}}
        for depth in range(1, model.spec.trained_loops + 1):
            steps = model.generate([PROMPT], max_new_tokens=TOKENS + 1, max_loops=depth)
            round_["depth"][str(depth)] = per_token([now() for _ in steps])
        running = core.submit(Request(PROMPT, 2 * TOKENS, halt_threshold=EXITS))
        moments = []
        while core.busy:
            moments += [now()] * len(core.tick())
        # Tokens of several depths: their mean time belongs to their mean depth. The first comes out of the prompt.
        wall, cpu = (1e3 * (moments[-1][i] - moments[0][i]) / (len(moments) - 1) for i in range(2))
        round_["exits"] = {"wall": wall, "cpu": cpu, "mean_depth": statistics.mean(running.depth[1:])}
        round_["read"].append(reading_rate())
        print(json.dumps({**round_, "peak": peak_memory()}), flush=True)


if __name__ == "__main__":
    main()
