"""The whole 1b model: Triton kernels against plain PyTorch, equal depths and all; and its time."""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch

from benchmarks.gpu.cases import call_of, config_of, model_of, with_triton
from benchmarks.gpu.run import Run

_CALLS = {"prefill": (2, 64, 0), "token": (2, 1, 300), "chunk": (1, 17, 300), "long prefill": (1, 1024, 0)}
_DRY_CALLS = {"prefill": (2, 6, 0), "token": (2, 1, 9), "chunk": (1, 3, 9)}


def main(run: Run) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    config = config_of("1b", run.dry)
    kinds: tuple[Literal["mla", "gqa"], ...] = ("mla", "gqa")
    for attention in kinds:
        for name, dtype in run.precisions.items():
            with run.record.step(f"{attention} {name}"):
                model = model_of(config, run.device, dtype, attention)
                calls = _DRY_CALLS if run.dry else _CALLS
                found: dict[str, Any] = {label: _compare(model, run.device, *sizes) for label, sizes in calls.items()}
                found["ok"] = all(call["depths_equal"] == 1.0 for call in found.values())
                run.record.say(f"{attention} {name}", found)
            if name == ("fp16" if run.dry else "bf16") and attention == "mla":
                with run.record.step("times"):
                    _times(run, model)
            del model
            if not run.dry:
                torch.cuda.empty_cache()


def _compare(model: Any, device: str, B: int, T: int, S: int) -> dict[str, Any]:
    """Logits relative to their largest, the share of equal depths, loops of both, tokens by depth."""
    call = functools.partial(model, **call_of(model, device, B, T, S))
    want = call()
    with with_triton():
        got = call()
    return {
        "logits": float((got.logits - want.logits).abs().max()) / float(want.logits.abs().max()),
        "depths_equal": float((got.depth == want.depth).float().mean()),
        "loops": [int(got.loops), int(want.loops)],
        "tokens_by_depth": torch.bincount(want.depth.flatten().cpu()).tolist(),
    }


def _times(run: Run, model: Any) -> None:
    found: dict[str, Any] = {}
    for label, (B, T, S) in {
        "decode": (1, 1, 4 if run.dry else 1000),
        "prefill": (1, 8 if run.dry else 512, 0),
    }.items():
        inputs = call_of(model, run.device, B, T, S)
        for threshold, kind in ((2.0, "every loop"), (None, "halting")):
            call = functools.partial(model, **inputs, halt_threshold=threshold)
            row = {"loops": int(call().loops), "plain_ms": run.seconds(call, 7) * 1e3}
            with with_triton():
                row["triton_ms"] = run.seconds(call, 7) * 1e3
            found[f"{label}, {kind}"] = row
            run.record.say("times", found)
