"""The exported bundle against the reference's way of computing, in one run: `python -m benchmarks.against_reference`.

Decode with 128 and with 1000 tokens held, and prefill of 128 tokens; dim 512, 8 heads, MLA 128 + 32, 16 experts top-2
of width 256, 2 + 2 layers, 8 loops forced (nothing halts), vocabulary 8192, random weights, float32, one thread.
Three contestants take turns, so that all meet the same disturbances: eager PyTorch with the reference's semantics
(`reference_semantics.py`), the bundle on its portable function bodies, the bundle with the native CPU kernels.

The limits are measured in the same run: `of memory` is the time of PyTorch's matrix-vector products over the very
weights that a token reads (the loop's weights eight times over, as they are met) divided by the row's time;
`of arithmetic` the multiplications at the rate of a 1024 x 1024 product.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import mythos_runtime
from benchmarks.decode_context import CONFIG
from benchmarks.reference_semantics import Cache, ReferenceSemantics
from mythos_export import export
from mythos_model import MythosModel, save_checkpoint
from mythos_runtime.ort import find_op_library, why_no_op_library

NEVER = 1e9  # halting threshold that nothing reaches
LOOPS = CONFIG.max_loop_iters
REPEATS = 9
WARM_UP = 2
RESULT = Path(__file__).parent / "results" / "against_reference.json"
WANTED = {"decode, 128 held": 6.0, "decode, 1000 held": 12.0, "prefill, 128": 3.0}

Call = Callable[[], np.ndarray]


def bundle_call(model: mythos_runtime.Model, ids: np.ndarray, held: int) -> Call:
    """Forward of `ids` after a prefill of `held` tokens; the cache is cut back each time."""
    if held == 0:
        return lambda: model.forward(ids, halt_threshold=NEVER).logits
    cache = model.new_cache(1, held + 64)
    model.forward(prompt(held), cache=cache, halt_threshold=NEVER)

    def call() -> np.ndarray:
        logits = model.forward(ids, cache=cache, halt_threshold=NEVER).logits
        cache.truncate(held)
        return logits

    return call


def reference_call(reference: ReferenceSemantics, ids: np.ndarray, held: int) -> Call:
    tokens = torch.from_numpy(ids)
    if held == 0:
        return lambda: reference.forward(tokens, LOOPS, NEVER).numpy()
    filled: Cache = {}
    reference.forward(torch.from_numpy(prompt(held)), LOOPS, NEVER, filled)
    return lambda: reference.forward(tokens, LOOPS, NEVER, dict(filled), held).numpy()


def prompt(tokens: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, CONFIG.vocab_size, (1, tokens))


def weights_of_a_token(state: dict[str, torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """(met once, met in every loop): the matrices that one token multiplies with, K of the experts among them."""
    once, looped = [], []
    for name, value in state.items():
        if value.dim() != 2 or (".routed_experts." in name and int(name.split(".")[4]) >= CONFIG.n_experts_per_tok):
            continue
        if name != "head.weight":  # tied to the embedding, which is read as the head
            (looped if name.startswith("recurrent.") else once).append(value.contiguous())
    return once, looped


def memory_limit(state: dict[str, torch.Tensor]) -> Callable[[], None]:
    once, looped = weights_of_a_token(state)
    vectors = {width: torch.randn(width) for width in {w.shape[1] for w in (*once, *looped)}}

    def call() -> None:
        for weight in once:
            torch.mv(weight, vectors[weight.shape[1]])
        for _ in range(LOOPS):
            for weight in looped:
                torch.mv(weight, vectors[weight.shape[1]])

    return call


def products(state: dict[str, torch.Tensor], tokens: int, held: int) -> int:
    """Multiplications of a forward: the weights once per token (per loop), attention in its absorbed form."""
    once, looped = weights_of_a_token(state)
    matrices = sum(w.numel() for w in once) + LOOPS * sum(w.numel() for w in looped)
    layers = CONFIG.prelude_layers + CONFIG.coda_layers + LOOPS
    keys = tokens * held + tokens * (tokens + 1) // 2
    attention = layers * CONFIG.n_heads * keys * (2 * CONFIG.kv_lora_rank + CONFIG.qk_rope_head_dim)
    return tokens * matrices + attention


def timed(calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of every call, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(WARM_UP + REPEATS):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if repeat >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    torch.set_num_threads(1)
    state = MythosModel(CONFIG).reset_parameters().reference_state()
    reference = ReferenceSemantics(CONFIG, state)
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(save_checkpoint(Path(folder) / "model", CONFIG, state), Path(folder) / "bundle").path
        models = {"portable bodies": mythos_runtime.load(bundle, threads=1, op_library=None)}
        if find_op_library():
            models["native kernels"] = mythos_runtime.load(bundle, threads=1)
    square = torch.randn(1024, 1024)
    rows = []
    for name, tokens, held in (("decode, 128 held", 1, 128), ("decode, 1000 held", 1, 1000), ("prefill, 128", 128, 0)):
        ids = np.random.default_rng(1).integers(0, CONFIG.vocab_size, (1, tokens))
        calls: dict[str, Callable[[], object]] = {"reference": reference_call(reference, ids, held)}
        calls |= {form: bundle_call(model, ids, held) for form, model in models.items()}
        expected = np.asarray(calls["reference"]())
        distance = max(float(np.abs(np.asarray(calls[f]()) - expected).max() / np.abs(expected).max()) for f in models)
        calls |= {"memory limit": memory_limit(state), "1024^3": lambda: torch.mm(square, square)}
        seconds = timed(calls)
        median = {form: statistics.median(times) for form, times in seconds.items()}
        rate = 1024**3 / min(seconds["1024^3"])
        for form in models:
            ratios = sorted(a / b for a, b in zip(seconds["reference"], seconds[form], strict=True))
            row = {
                "workload": name,
                "form": form,
                "reference_ms": 1e3 * median["reference"],
                "median_ms": 1e3 * median[form],
                "ratio": statistics.median(ratios),
                "ratio_low": ratios[1],
                "ratio_high": ratios[-2],
                "of_memory": min(seconds["memory limit"]) / median[form] if tokens == 1 else None,
                "of_arithmetic": products(state, tokens, held) / rate / median[form],
                "distance": distance,
            }
            rows.append(row)
    document = {
        "command": "python -m benchmarks.against_reference",
        "threads": 1,
        "wanted": WANTED,
        "native_kernels": "measured" if "native kernels" in models else why_no_op_library(),
        "rows": rows,
    }
    show(rows)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document))


def show(rows: list[dict]) -> None:
    table = Table(
        "workload", "form", "reference", "bundle", "times faster", "8 of 9 turns", "of memory", "of arithmetic"
    )
    for row in rows:
        table.add_row(
            row["workload"],
            row["form"],
            f"{row['reference_ms']:.1f} ms",
            f"{row['median_ms']:.1f} ms",
            f"{row['ratio']:.1f}",
            f"{row['ratio_low']:.1f} to {row['ratio_high']:.1f}",
            "" if row["of_memory"] is None else f"{row['of_memory']:.0%}",
            f"{row['of_arithmetic']:.0%}",
        )
    console = Console()
    console.print(table)
    console.print("One thread. `of memory`: the share of the row's time that the bare matrix-vector products take.")


if __name__ == "__main__":
    main()
