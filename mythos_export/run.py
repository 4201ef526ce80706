"""`mythos run`: generate one sequence, show it as it comes, and sum up how deep it thought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mythos_runtime import Model
from mythos_runtime.errors import RequestError

BAR = 40  # characters of the histogram's longest bar


@dataclass(frozen=True)
class Run:
    """One generated sequence: new ids, the depth behind each, iterations per step, and the engine's seconds.

    `finished` says why it ended: "eos", "stop" or "length".
    """

    tokens: list[int]
    depth: list[int]
    loops: list[int]
    prefill_seconds: float
    decode_seconds: float
    policy: str
    finished: str

    @property
    def tokens_per_second(self) -> float:
        """Tokens after the first, over the engine's time for them."""
        return (len(self.tokens) - 1) / self.decode_seconds if self.decode_seconds > 0 else 0.0

    def summary(self) -> str:
        """Speed, mean depth and a histogram of depths, for people."""
        mean = sum(self.depth) / len(self.depth)
        lines = [
            f"{len(self.tokens)} tokens, {self.tokens_per_second:.1f} tokens/s after the first "
            f"({1e3 * self.prefill_seconds:.1f} ms), mean depth {mean:.1f} loops, cache policy {self.policy}"
        ]
        counts = Counter(self.depth)
        most = max(counts.values())
        for depth in range(min(counts), max(counts) + 1):
            bar = "█" * round(BAR * counts[depth] / most)
            lines.append(f"  {depth:3d} loops {counts[depth]:5d} {bar}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "depth": self.depth,
            "loops": self.loops,
            "tokens_per_second": self.tokens_per_second,
            "prefill_seconds": self.prefill_seconds,
            "policy": self.policy,
            "finished": self.finished,
        }


def parse_ids(model: Model, prompt: str | None, ids: str | None) -> list[int]:
    """The prompt's ids from either of the two options (RequestError where neither or both are given, or unusable)."""
    if (prompt is None) == (ids is None):
        raise RequestError("give a prompt: either --prompt TEXT or --ids 1,2,3")
    if ids is not None:
        return id_list("--ids", ids)
    if model.tokenizer is None:
        raise RequestError("this bundle has no tokenizer; give --ids, or export it with --tokenizer")
    return model.tokenizer.encode(prompt or "")


def id_list(option: str, text: str) -> list[int]:
    """The ids in an option's text, such as 1,2,3 (RequestError)."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise RequestError(f"{option} {text!r} is not a list of ids; expected one like 1,2,3")
    return [int(part) for part in parts]


def stream(model: Model, ids: list[int], echo: Callable[..., None], *, policy: str, **options: Any) -> Run:
    """Generate, echoing every token as it comes, and return the whole."""
    text = model.tokenizer.stream() if model.tokenizer is not None else None
    tokens: list[int] = []
    depth: list[int] = []
    loops: list[int] = []
    prefill = decode = 0.0
    finished: str | None = None
    for step in model.generate([ids], policy=policy, **options):
        if tokens:
            decode += step.seconds
        else:
            prefill = step.seconds
        tokens.append(int(step.tokens[0]))
        depth.append(int(step.depth[0]))
        loops.append(step.loops)
        finished = step.finished[0]
        echo(text.feed(tokens[-1]) if text else f"{tokens[-1]} ", nl=False)
    echo(text.finish() if text else "")
    assert finished is not None  # a generation ends only where its row has
    return Run(tokens, depth, loops, prefill, decode, policy, finished)
