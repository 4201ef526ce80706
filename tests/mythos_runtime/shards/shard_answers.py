"""What an engine answers, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mythos_runtime.engine import Request, Running, Token, open_engine
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.sampling import SamplingOptions
from mythos_runtime.session import Options


def requests(count: int) -> list[Request]:
    """Of several lengths, some sampled."""
    sampling = [SamplingOptions(), SamplingOptions(temperature=1.0, seed=7)]
    return [Request([60 + n, 9, n], max_new_tokens=4 + n, sampling=sampling[n % 2]) for n in range(count)]


def engine_of(bundle: Path, patience: float | None = None, **options: Any) -> Engine:
    return open_engine(
        bundle, EngineOptions(memory=32 << 20, patience=patience), options=Options(1, provider="cpu"), **options
    )


def answers(engine: Engine, asked: list[Request]) -> list[tuple[list[int], list[int], bytes]]:
    """Tokens, depths and the bytes of all logits of each request, all at a time."""
    running = [engine.submit(request) for request in asked]
    got: dict[Running, list[Token]] = {each: [] for each in running}
    while engine.busy:
        for token in engine.tick():
            got[token.running].append(token)
    assert all(each.error is None for each in running)
    return [(each.tokens, each.depth, b"".join(t.logits.tobytes() for t in got[each])) for each in running]
