"""The kernels at the sizes of real variants, against the plain operators in float64 on the same device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.cases import (
    VARIANTS,
    Maker,
    all_shared_case,
    attention_case,
    config_of,
    double,
    moe_case,
    most_experts,
    norm_case,
    paged_case,
    rotary_case,
    tail_case,
    triton_ops,
)
from benchmarks.gpu.run import LIMITS, Run, distance
from benchmarks.gpu.spread import spread
from mythos_model import ops as plain
from mythos_model import paged_ops
from mythos_model.products import moe

_TOKENS = (1, 2, 8, 9, 64, 513, 4096)
_CALLS = ((1, 1, 0), (1, 1, 100), (1, 1, 4096), (3, 1, 1000), (64, 1, 2048), (1, 4, 777), (2, 128, 0), (1, 512, 512))
_DRY_CALLS = ((1, 1, 0), (2, 1, 40), (1, 40, 9))
_ROWS = ((1, 0), (1, 4096), (16, 1000), (64, 2048), (256, 100))
_DRY_ROWS = ((1, 0), (3, 40))
_MOST_SCORES = 40_000_000  # of a call in float64: heads times new tokens times keys


def main(run: Run) -> None:
    if not run.select:
        spread(run, "sizes", [f"{variant}-{name}" for variant in VARIANTS for name in run.precisions], main)
        return
    variant, _, name = run.select.partition("-")
    config, dtype = config_of(variant, run.dry), run.precisions[name]
    for n in (1, 20) if run.dry else _TOKENS:
        _check(
            run,
            f"moe {variant} n={n} {name}",
            "moe",
            lambda make, n=n: moe_case(config, n, make, most_experts(variant)),
            dtype,
        )  # type: ignore[misc]
    if variant == VARIANTS[-1] and name == ("fp32" if run.dry else "bf16"):  # once: it takes 21 GB
        for n in (1, 20):
            with run.record.step(f"moe {variant} all shared units n={n} {name}"):
                case, small = all_shared_case(config, n, Maker(run.device, dtype, n))
                far = distance(triton_ops()["moe"](**case), moe(**double(small)))
                run.record.say(
                    f"moe {variant} all shared units n={n} {name}", {"distance": far, "ok": far < LIMITS[name]}
                )
                del case
    for op in ("mla_attention", "gqa_attention"):
        for B, T, S in _DRY_CALLS if run.dry else _CALLS:
            if B * T * (S + T) * config.n_heads > _MOST_SCORES:
                continue
            label = f"{op} {variant} B={B} T={T} S={S} {name}"
            _check(run, label, op, functools.partial(attention_case, config, op, B, T, S), dtype)
    for op in ("paged_mla_attention_", "paged_gqa_attention_"):
        for rows, length in _DRY_ROWS if run.dry else _ROWS:
            if rows * (length + 1) * config.n_heads <= _MOST_SCORES:
                label = f"{op} {variant} rows={rows} length={length} {name}"
                _check(run, label, op, functools.partial(paged_case, config, op, rows, length), dtype)
    for op, of in (("rms_norm", norm_case), ("rotary_embedding", rotary_case), ("loop_tail", tail_case)):
        for rows in (1, 7) if run.dry else (1, 700):
            _check(run, f"{op} {variant} rows={rows} {name}", op, functools.partial(of, config, rows), dtype)


def _check(run: Run, label: str, op: str, case_of: Callable[..., dict[str, Any]], dtype: torch.dtype) -> None:
    with run.record.step(label):
        case = case_of(make=Maker(run.device, dtype, sum(map(ord, label))))
        exact = double(case)  # before the kernel writes into a cache
        got, expected = triton_ops()[op](**case), getattr(paged_ops if "paged" in op else plain, op)(**exact)
        pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
        far = max(distance(*pair) for pair in pairs)
        run.record.say(label, {"distance": far, "ok": far < LIMITS[label.rpartition(" ")[2]]})
        del case
        if not run.dry:
            torch.cuda.empty_cache()
