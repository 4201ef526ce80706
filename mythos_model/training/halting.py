"""When a position should halt, learnt from the model itself.

No label says how deep an input is. The model's own answer after every loop does: from some loop on it no longer
changes. That loop, detached, is the target of the halting probability.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def settled(answers: Tensor, confirmations: int = 0) -> Tensor:
    """Whether a position may halt after each loop: its answer stays what it is, and has been seen again.

    Args:
        answers: int64 [N, ...], the answer that each loop would give.
        confirmations: loops to wait after the answer first appeared. 1 lets the model see it again before it halts:
            a pointer that has arrived at the end of a chain only knows so by following it once more.

    Returns: bool [N, ...], False then True along N; False throughout where the answer changed too late.

    >>> settled(torch.tensor([[7], [3], [3], [3]]), confirmations=1).flatten().tolist()
    [False, False, True, True]
    """
    stays = _from_here_on(answers == answers[-1:])
    if confirmations:
        waiting = torch.zeros_like(stays[:confirmations])
        stays = torch.cat([waiting, stays[:-confirmations]])
    return stays


def settled_distribution(logits: Tensor, tolerance: float) -> Tensor:
    """The same of a distribution instead of one answer: it stays within `tolerance` of the last loop's.

    A language model's likeliest byte is often right long before its probabilities are, so they are what must settle.

    Args:
        logits: [N, ..., V].
        tolerance: total variation distance, 0 to 1: the most that the probability of any set of answers may differ.

    Returns: bool [N, ...]; True in the last loop, which says nothing.
    """
    probability = logits.softmax(-1)
    distance = (probability - probability[-1:]).abs().sum(-1) / 2
    return _from_here_on(distance <= tolerance)


def _from_here_on(fine: Tensor) -> Tensor:
    """Whether this loop and all after it are fine: bool [N, ...]."""
    return fine.flip(0).cumprod(0).flip(0).bool()


def halting_loss(halt_logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of the halting probability against `settled`, both [N, ...]: a scalar."""
    return F.binary_cross_entropy_with_logits(halt_logits, target.to(halt_logits.dtype))


@torch.no_grad()
def balance_experts(router_bias: Tensor, load: Tensor, rate: float = 1e-3) -> None:
    """Nudge the selection bias towards even use of the experts, without a loss (https://arxiv.org/abs/2408.15664).

    Args:
        router_bias: [E], changed in place.
        load: [E], share of the tokens per expert.
    """
    router_bias += rate * torch.sign(load.mean() - load)
