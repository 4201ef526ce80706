"""What a cache policy that is not exact costs on data: the same tokens, once with every entry and once with the policy.

Each row is read from its first token on, one token at a time as in generation, so that every entry that the policy
leaves out is met by the tokens behind it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from scipy.special import log_softmax

from mythos_export.errors import CasesError
from mythos_export.progress import Progress, silent
from mythos_runtime import Model, load
from mythos_runtime.engine.sequence import Policy

MOST_TOKENS = 20_000


@dataclass(frozen=True)
class PolicyCost:
    """A policy beside the exact one.

    Attributes:
        tokens: positions whose answers were compared.
        bits, exact_bits: of the next token, mean, with the policy and without.
        right, exact_right: how often the likeliest token is the one that follows.
        changed: how often another token is the likeliest.
        divergence, worst_divergence: of the distributions, in bits (Kullback and Leibler, from the exact one).
        depth, exact_depth: loops a token, mean: what halts is decided by other states.
        rows, exact_rows: of the step graph, a token.
        answers, answered, exact_answered: rows of the data with a right answer behind their last token, and how many
            were right; None where the data brings no answers.
    """

    policy: str
    tokens: int
    bits: float
    exact_bits: float
    right: float
    exact_right: float
    changed: float
    divergence: float
    worst_divergence: float
    depth: float
    exact_depth: float
    rows: float
    exact_rows: float
    answers: int | None = None
    answered: int | None = None
    exact_answered: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sentence(self) -> str:
        """What a person decides from."""
        text = (
            f"The policy {self.policy} on {self.tokens} tokens: another token is the likeliest at {self.changed:.1%}; "
            f"{self.bits:.4f} bits a token instead of {self.exact_bits:.4f} (divergence {self.divergence:.2g} on "
            f"average, {self.worst_divergence:.2g} at worst)"
        )
        if self.answers is not None:
            text += f"; of {self.answers} answers {self.answered} are right instead of {self.exact_answered}"
        saved = 1 - self.rows / self.exact_rows if self.exact_rows else 0.0
        return f"{text}; {saved:.0%} of the rows are saved."


def cost_of_policy(
    bundle: Path, policy: Policy, data: Path, threads: int | None = None, progress: Progress = silent
) -> PolicyCost:
    """Read the rows of a safetensors file (`input_ids` [Q, T], and `answer` [Q] where the last position has a right
    one), at most `MOST_TOKENS` tokens.

    Raises:
        CasesError: the file is not like that. RequestError: the bundle has no policies.
    """
    ids, answer = _read(data)
    with load(bundle, threads=threads, verify="sizes", provider="cpu") as model:
        given = ids[: max(1, MOST_TOKENS // ids.shape[1])]
        exact, ours = _Side(model, "lazy"), _Side(model, policy)
        for number, row in enumerate(given):
            progress(f"row {number + 1} of {len(given)}")
            exact.read(row)
            ours.read(row)
    return _compare(policy, given, None if answer is None else answer[: len(given)], exact, ours)


class _Side:
    """One policy's answers."""

    def __init__(self, model: Model, policy: Policy) -> None:
        self.model, self.policy = model, policy
        self.logits: list[np.ndarray] = []
        self.depth: list[int] = []
        self.rows = 0

    def read(self, ids: np.ndarray) -> None:
        cache, ran = self.model.new_cache(1, len(ids), policy=self.policy), self.model.engine()
        before = ran.usage.rows
        for token in ids:
            out = self.model.forward(token[None, None], cache=cache)
            self.logits.append(out.logits[0, 0])
            self.depth.append(int(out.depth[0, 0]))
        self.rows += ran.usage.rows - before


def _compare(policy: str, ids: np.ndarray, answer: np.ndarray | None, exact: _Side, ours: _Side) -> PolicyCost:
    rows, tokens = ids.shape
    p, q = (log_softmax(np.stack(side.logits).astype(np.float64), -1) / np.log(2) for side in (exact, ours))
    divergence = (np.exp2(p) * (p - q)).sum(-1)
    known = np.ones((rows, tokens), bool)
    follows = np.zeros((rows, tokens), np.int64)
    follows[:, :-1] = ids[:, 1:]
    known[:, -1] = answer is not None
    if answer is not None:
        follows[:, -1] = answer
    flat, at = follows.ravel(), np.flatnonzero(known.ravel())
    best = p.argmax(-1), q.argmax(-1)
    right = [each.reshape(rows, tokens)[:, -1] == answer for each in best]
    return PolicyCost(
        policy,
        rows * tokens,
        float(-q[at, flat[at]].mean()),
        float(-p[at, flat[at]].mean()),
        float((best[1] == flat)[at].mean()),
        float((best[0] == flat)[at].mean()),
        float((best[0] != best[1]).mean()),
        float(divergence.mean()),
        float(divergence.max()),
        float(np.mean(ours.depth)),
        float(np.mean(exact.depth)),
        ours.rows / (rows * tokens),
        exact.rows / (rows * tokens),
        None if answer is None else rows,
        None if answer is None else int(right[1].sum()),
        None if answer is None else int(right[0].sum()),
    )


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        found = load_file(path)
        ids, answer = found["input_ids"].astype(np.int64), found.get("answer")
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise CasesError(f"{path}: expected a safetensors file with input_ids [Q, T] ({error})") from error
    if ids.ndim != 2 or ids.shape[1] < 2 or not len(ids):
        raise CasesError(f"{path}: input_ids should be [Q, T] with two tokens or more, found {list(ids.shape)}")
    if answer is not None and answer.shape != ids.shape[:1]:
        raise CasesError(f"{path}: answer should be [{len(ids)}], found {list(answer.shape)}")
    return ids, answer
