"""What counts as settled."""

from __future__ import annotations

import torch

from mythos_model.training.halting import balance_experts, halting_loss, settled, settled_distribution


def test_settled_needs_the_answer_to_stay() -> None:
    answers = torch.tensor([[1, 2, 5], [3, 2, 4], [1, 2, 4], [1, 2, 3]])  # [N = 4, three positions]
    assert settled(answers).T.tolist() == [
        [False, False, True, True],  # a first hit that is left again does not count
        [True, True, True, True],
        [False, False, False, True],
    ]
    assert settled(answers, confirmations=1).T.tolist() == [
        [False, False, False, True],
        [False, True, True, True],
        [False, False, False, False],  # changed too late to be confirmed
    ]


def test_distribution_settles_later_than_its_likeliest_answer() -> None:
    probabilities = torch.tensor([[0.6, 0.4], [0.75, 0.25], [0.79, 0.21], [0.8, 0.2]])
    logits = probabilities.log()
    assert settled(logits.argmax(-1)).all()
    assert settled_distribution(logits, 0.03).tolist() == [False, False, True, True]
    assert settled_distribution(logits, 0.1).tolist() == [False, True, True, True]


def test_halting_loss_is_least_at_its_target() -> None:
    target = torch.tensor([False, True])
    assert halting_loss(torch.tensor([-9.0, 9.0]), target) < 1e-3 < halting_loss(torch.tensor([9.0, -9.0]), target)


def test_balance_raises_idle_experts() -> None:
    bias = torch.zeros(3)
    balance_experts(bias, torch.tensor([1.5, 0.5, 0.0]), rate=0.1)
    torch.testing.assert_close(bias, torch.tensor([-0.1, 0.1, 0.1]))
