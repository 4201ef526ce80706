"""`walk`: write down the stops of a walk. Answers have several tokens, each as deep as its stretch of the walk is long.

The recipe is that of `hops`; a stop that was written is the next question. A stretch of s steps needs s loops and one
more to see that the letter no longer moves. Training asks for 1 to 6 steps, hence 8 loops.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mythos_model.families.openmythos import MythosModel
from mythos_model.training.tasks import chains, walks
from mythos_model.training.tasks.chains import LETTERS, Questions
from mythos_model.training.tasks.evaluate_walk import SEED, evaluate, held_out
from mythos_model.training.tasks.hops import Hops


class Walk(Hops):
    """The recipe of the shipped model `walk`."""

    name = "walk"
    stages = (0, 3, 4, 6)
    config = dataclasses.replace(Hops.config, vocab_size=walks.VOCABULARY, max_loop_iters=8, max_output_tokens=32)
    steps = 1500

    @torch.no_grad()
    def initialise(self, model: MythosModel, seed: int) -> None:
        """As `hops`; a stop's code is its own, and a jump's embedding the sum of that and a code of its target."""
        super().initialise(model, seed)
        generator = torch.Generator().manual_seed(seed)
        letters, stops, targets = (torch.randn(LETTERS, self.config.dim, generator=generator) * 0.4 for _ in range(3))
        both = torch.cat([letters, stops])
        model.embed.weight.copy_(torch.cat([both, 0.7 * (both[:, None] + targets[None]).flatten(0, 1)]))

    def _draw(self, random: np.random.Generator) -> tuple[Questions, int]:
        """A batch of the present lesson, and how many loops to run on it."""
        if self.deepest == 0:
            nodes, stops, loops = int(random.choice([6, 8, 12])), 4, 2
            forest = chains.shuffle_letters(random, self.batch, nodes)
        else:
            nodes = int(random.choice([12, 16, 20, 24] if self.deepest >= 4 else [6, 8, 10, 12]))
            loops = self.deepest + (2 if random.random() < 0.75 else 1)
            stops = int(random.integers(3, 6 if nodes >= 16 else 5))
            forest = chains.grow_forest(random, self.batch, nodes, stops, self.deepest)
        questions = walks.ask(random, forest, stops, max(self.deepest, 1), self.questions, loops)
        if self.deepest == 0:  # a permutation has no end
            questions = dataclasses.replace(questions, answer=walks.STOPS + questions.path[-1])
        return questions, loops

    def evaluate(self, model: MythosModel) -> dict[str, Any]:
        return dataclasses.asdict(evaluate(model, held_out(self.checked)))

    def held_out_inputs(self) -> dict[str, Tensor]:
        return {name: column.int() for name, column in vars(held_out(each=32, seed=SEED + 1)).items()}
