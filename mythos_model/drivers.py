"""The two drivers of a loop: Python, where people and the trainer look at it, and torch's `while_loop`, the form that
torch.export keeps as one control-flow node. Both call the same step, so there is one definition of an iteration.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from mythos_model.state import Carry, Context

Step = Callable[[Carry, Context], Carry]


def goes_on(carry: Carry, context: Context) -> Tensor:
    """bool []: whether another iteration runs."""
    return (carry.iteration < context.limit) & (carry.running | context.every_loop)


def run_python(first: Carry, step: Step, context: Context) -> Carry:
    """Drive the steps from Python; `taps.recording` shows them."""
    carry = first
    while bool(goes_on(carry, context)):
        carry = step(carry, context)
    return carry


def run_while_loop(first: Carry, step: Step, context: Context) -> Carry:
    """Drive the steps by `while_loop`, whose state is a flat tuple of tensors."""
    kind, count = type(first.exit), len(first.exit)

    def whole(state: tuple[Tensor, ...]) -> Carry:
        return Carry(state[0], state[1], kind(*state[2 : 2 + count]), *state[2 + count :])

    def flat(carry: Carry) -> tuple[Tensor, ...]:
        return (carry.iteration, carry.h, *carry.exit, carry.running, carry.new_loop)

    def condition(*state: Tensor) -> Tensor:
        return goes_on(whole(state), context)

    def body(*state: Tensor) -> tuple[Tensor, ...]:
        return flat(step(whole(state), context))

    return whole(while_loop(condition, body, flat(first)))
