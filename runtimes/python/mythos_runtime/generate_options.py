"""What `generate` may be given by keyword, as a type for those who pass it on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from mythos_runtime.engine.sequence import Policy
from mythos_runtime.engine.speculation import Speculate


class GenerateOptions(TypedDict, total=False):
    """Of `mythos_runtime.generate.generate`, which says what each means and its default."""

    max_new_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int
    eos: int | Sequence[int] | None
    stop: Sequence[Sequence[int]]
    max_loops: int | None
    halt_threshold: float | None
    policy: Policy | None
    prefill_chunk: int
    state_seed: int
    loops_per_token: float | None
    latency_ms: float | None
    speculate: Speculate
