"""What a server was started with."""

from __future__ import annotations

from dataclasses import dataclass

from mythos_runtime.engine.sequence import Policy

LAZY: Policy = "lazy"
"""lazy: no deeper than needed, exactly. full: every loop of every position, as for comparisons."""


@dataclass(frozen=True)
class Settings:
    """Names, keys, limits, and what a request that says nothing gets.

    Attributes:
        name: of the model, as clients call it.
        keys: one of which a client has to bring; none: nobody needs one.
        hosts: what a request's header Host may name; none: anything.
        most_running, most_queued: requests that the engine runs at a time, and that wait for it.
        most_body: bytes of a request. most_prompt, most_tokens: ids of a prompt, and new ones (None: the model's).
        most_loops: that a request may ask for. most_seconds: from a request's arrival to its end.
        max_loops, halt_threshold, loops_per_token, latency_ms, policy: defaults of a request (None: as trained, and no
            budget).
        log_prompts: write prompts and answers to the log.
    """

    name: str
    most_loops: int
    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    most_running: int = 64
    most_queued: int = 256
    most_body: int = 4 << 20
    most_prompt: int | None = None
    most_tokens: int | None = None
    most_seconds: float = 600.0
    max_loops: int | None = None
    halt_threshold: float | None = None
    loops_per_token: float | None = None
    latency_ms: float | None = None
    policy: Policy = LAZY
    log_prompts: bool = False
