"""What a token costs as the context grows: `python -m benchmarks.decode_context`.

One model, one run, contexts interleaved. Two questions: does a token cost more because the cache's capacity is large
(it should not: only what is filled is read), and does memory grow with every token (it should not: buffers are fixed).
Prints a table, and writes and prints one JSON line.
"""

from __future__ import annotations

import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import mythos_runtime
from mythos_export import export
from mythos_model import MythosConfig, MythosModel, save_checkpoint

CONFIG = MythosConfig(
    vocab_size=8192,
    dim=512,
    n_heads=8,
    max_seq_len=8192,
    max_loop_iters=8,
    kv_lora_rank=128,
    q_lora_rank=256,
    qk_rope_head_dim=32,
    qk_nope_head_dim=64,
    v_head_dim=64,
    n_experts=16,
    n_experts_per_tok=2,
    n_shared_experts=1,
    expert_dim=256,
)
CASES = ((128, 160), (128, 4224), (1024, 4224), (4096, 4224))  # tokens held, capacity
REPEATS = 15
RESULT = Path(__file__).parent / "results" / "decode_context.json"


def main() -> None:
    """Export, measure, report."""
    with tempfile.TemporaryDirectory() as folder:
        state = MythosModel(CONFIG).reset_parameters().reference_state()
        source = save_checkpoint(Path(folder) / "model", CONFIG, state)
        model = mythos_runtime.load(export(source, Path(folder) / "bundle").path, threads=1, op_library=None)
    random = np.random.default_rng(0)
    caches = []
    for held, capacity in CASES:
        cache = model.new_cache(1, capacity)
        for buffer in (cache.past_layers, cache.past_loop):
            buffer[:, :, :held] = random.standard_normal(buffer[:, :, :held].shape, np.float32)
        cache.lengths[:] = held
        caches.append(cache)

    seconds: list[list[float]] = [[] for _ in CASES]
    token = np.array([[1]])
    for repeat in range(REPEATS + 3):
        for index, cache in enumerate(caches):
            started = time.perf_counter()
            model.forward(token, cache=cache)
            if repeat >= 3:  # warm-up
                seconds[index].append(time.perf_counter() - started)
            cache.truncate(CASES[index][0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    caches[-1].truncate(4000)
    for _ in range(64):
        model.forward(token, cache=caches[-1])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    medians = [statistics.median(times) for times in seconds]
    table = Table("tokens held", "capacity", "median per token", "ratio")
    for (held, capacity), median in zip(CASES, medians, strict=True):
        table.add_row(str(held), str(capacity), f"{1e3 * median:.1f} ms", f"{median / medians[0]:.2f}")
    console = Console()
    console.print(table)
    console.print(f"64 more tokens at 4000 held raised the peak memory by {grown} KiB. One thread, portable operators.")
    document = {
        "rows": [
            {"held": held, "capacity": capacity, "median_ms": 1e3 * median, "ratio": median / medians[0]}
            for (held, capacity), median in zip(CASES, medians, strict=True)
        ],
        "peak_growth_kib_over_64_tokens": grown,
        "command": "python -m benchmarks.decode_context",
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
