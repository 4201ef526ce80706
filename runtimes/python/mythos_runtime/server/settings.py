"""What a server was started with."""

from __future__ import annotations

from dataclasses import dataclass

from mythos_runtime.engine.admission import check_budget
from mythos_runtime.engine.request import Budget
from mythos_runtime.engine.sequence import Policy
from mythos_runtime.errors import RequestError
from mythos_runtime.knobs import halt_threshold
from mythos_runtime.spec import LoopSpec

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
        log_prompts: write what is asked to the log.
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

    def check(self, spec: LoopSpec) -> None:
        """RequestError where the defaults are such that every request that leaves them would be refused."""
        if self.max_loops is not None and self.max_loops > self.most_loops:
            raise RequestError(f"max_loops is {self.max_loops}, but at most {self.most_loops} are served (most_loops)")
        if self.halt_threshold is not None:
            halt_threshold(spec, self.halt_threshold)
        check_budget(Budget(self.loops_per_token, self.latency_ms), spec)
