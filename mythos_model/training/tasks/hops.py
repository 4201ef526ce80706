"""`hops`: find the end of a chain of pointers, a task whose need for depth is known.

A question of k hops needs k loops to arrive and one more to see that the pointer no longer moves. Training asks for
1 to 8 hops, hence 10 loops; held-out questions go further.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mythos_model.families.openmythos import MythosConfig, MythosModel
from mythos_model.training.halting import halting_loss, settled
from mythos_model.training.initial import calm_start
from mythos_model.training.tasks import chains
from mythos_model.training.tasks.chains import LETTERS, Questions
from mythos_model.training.tasks.evaluate_hops import SEED, evaluate, held_out
from mythos_model.training.tasks.task import Metrics
from mythos_model.training.unroll import halt, lens, read_out, unroll

PASSED = 0.95  # running accuracy that ends a lesson
LEAST_STEPS = 40  # of a lesson


class Hops:
    """The recipe of the shipped model `hops`."""

    name = "hops"
    stages: tuple[int, ...] = (0, 3, 4, 6, 8)  # most hops of each lesson; 0: follow two edges of a permutation
    config = MythosConfig(
        vocab_size=chains.VOCABULARY,
        dim=64,
        n_heads=4,
        n_kv_heads=4,
        max_seq_len=128,
        max_loop_iters=10,
        prelude_layers=1,
        coda_layers=1,
        attn_type="mla",
        kv_lora_rank=32,
        q_lora_rank=32,
        qk_rope_head_dim=8,
        qk_nope_head_dim=16,
        v_head_dim=16,
        n_experts=4,
        n_shared_experts=1,
        n_experts_per_tok=2,
        expert_dim=32,
        act_threshold=0.99,
        rope_theta=10000.0,
        lora_rank=4,
        max_output_tokens=1,
    )
    steps, warmup = 1800, 100
    betas, weight_decay = (0.9, 0.98), 0.01

    def __init__(self, batch: int = 64, questions: int = 12, ponder: float = 0.1, checked: int = 256) -> None:
        """`batch` prompts a step with `questions` each; `ponder` weighs the ponder cost; `checked` questions per
        number of hops are held out for the evaluation."""
        self.batch, self.questions, self.ponder, self.checked = batch, questions, ponder, checked
        self.lesson, self.lesson_steps, self.accuracy = 0, 0, 0.0

    def parameters(self) -> dict[str, Any]:
        names = ("batch", "questions", "ponder", "checked")
        return {name: getattr(self, name) for name in names}

    def prepare(self) -> None:
        """Questions are made up as they are asked: nothing to fetch."""

    @torch.no_grad()
    def initialise(self, model: MythosModel, seed: int) -> None:
        """Random weights with two hints of the task, as the model card says.

        An edge's embedding starts as the sum of its source letter's and a code of its target, and keys start equal to
        queries, so that attention begins by looking for the edge whose source is the letter held.
        """
        calm_start(model, seed, halt_bias=-2.0)
        generator = torch.Generator().manual_seed(seed)
        D, R, heads = self.config.dim, self.config.kv_lora_rank, self.config.n_heads
        nope, v = self.config.qk_nope_head_dim, self.config.v_head_dim
        letters, targets = (torch.randn(LETTERS, D, generator=generator) * 0.4 for _ in range(2))
        edges = 0.7 * (letters[:, None] + targets[None]).flatten(0, 1)
        model.embed.weight[: LETTERS + LETTERS**2] = torch.cat([letters, edges])
        for block in (*model.prelude, model.recurrent.block, *model.coda):
            block.attn.kv_down.weight[:R] = block.attn.q_down.weight
            keys = block.attn.kv_up.weight.view(heads, nope + v, R)
            keys[:, :nope] = block.attn.q_up_nope.weight.view(heads, nope, R)

    @property
    def deepest(self) -> int:
        """Most hops of the present lesson."""
        return self.stages[self.lesson]

    def learning_rate(self) -> float:
        return 3e-3 if self.deepest <= 3 else 2e-3  # 3e-3 throughout was unstable from 6 hops on

    def loss(self, model: MythosModel, random: np.random.Generator) -> tuple[Tensor, Tensor, Metrics]:
        questions, loops = self._draw(random)
        first = int(random.integers(0, 17)) if random.random() < 0.5 else 0
        detach = tuple(t > 0 and bool(random.random() < 0.5) for t in range(loops))
        run = unroll(model, questions.ids, loops, first, detach)
        ended = halt(run.halt_logits, self.config.act_threshold)
        edges = questions.ids.shape[1] - self.questions

        # Reading the last state, too, keeps states of any depth fit for the coda.
        last = self.deepest == 0 or random.random() < 0.25
        out = run.states[-1] if last else (ended.weights.unsqueeze(-1) * run.states).sum(0)
        logits = read_out(model, out, run.past)[:, edges:]
        final = F.cross_entropy(logits.flatten(0, 1), questions.answer.flatten())

        seen = lens(model, run.states[:, :, edges:], LETTERS)  # [N, B, Q, letters]
        path = F.cross_entropy(seen.flatten(0, 2), questions.path.flatten())
        loss = final + path
        guesses = seen.detach().argmax(-1)
        if self.deepest:
            target = settled(guesses, confirmations=1)
            loss = loss + 0.5 * halting_loss(run.halt_logits[:, :, edges:], target)
            # An edge is asked nothing: only the cost of thinking tells it when to stop.
            loss = loss + self.ponder * (ended.ponder[:, :edges].mean() + 0.1 * ended.ponder[:, edges:].mean())

        right = float((logits.detach().argmax(-1) == questions.answer).float().mean())
        followed = float((guesses == questions.path).float().mean())
        depth = ended.depth[:, edges:].float()
        metrics = {
            "hops": float(self.deepest),
            "answer loss": float(final.detach()),
            "path loss": float(path.detach()),
            "right": right,
            "followed": followed,
            "depth": float(depth.mean()),
            "depth of edges": float(ended.depth[:, :edges].float().mean()),
            "depth off": float((depth - questions.hops - 1).abs().mean()),
        }
        self._learnt(min(right, followed))
        return loss, run.load, metrics

    def _draw(self, random: np.random.Generator) -> tuple[Questions, int]:
        """A batch of the present lesson, and how many loops to run on it."""
        if self.deepest == 0:
            nodes, loops = int(random.choice([6, 8, 12])), 2
            forest = chains.shuffle_letters(random, self.batch, nodes)
        else:
            nodes = int(random.choice([12, 16, 20, 24] if self.deepest >= 4 else [6, 8, 10, 12]))
            loops = self.deepest + (2 if random.random() < 0.75 else 1)
            forest = chains.grow_forest(random, self.batch, nodes, int(random.integers(3, 5)), self.deepest)
        hops = random.integers(1, max(self.deepest, 1) + 1, (self.batch, self.questions))
        questions = chains.ask(random, forest, hops, loops)
        if self.deepest == 0:  # a permutation has no end
            questions = dataclasses.replace(questions, answer=questions.path[-1])
        return questions, loops

    def _learnt(self, accuracy: float) -> None:
        """Go on to the next lesson once this one is known."""
        self.accuracy = 0.95 * self.accuracy + 0.05 * accuracy
        self.lesson_steps += 1
        known = self.accuracy > PASSED and self.lesson_steps > LEAST_STEPS
        if known and self.lesson + 1 < len(self.stages):
            self.lesson, self.lesson_steps, self.accuracy = self.lesson + 1, 0, 0.8

    def evaluate(self, model: MythosModel) -> dict[str, Any]:
        return dataclasses.asdict(evaluate(model, held_out(self.checked)))

    def held_out_inputs(self) -> dict[str, Tensor]:
        sample = held_out(each=32, seed=SEED + 1)
        columns = {"input_ids": sample.ids, "answer": sample.answer, "hops": sample.hops, "trees": sample.trees}
        return {name: column.int() for name, column in columns.items()}

    def state(self) -> dict[str, Any]:
        return {"lesson": self.lesson, "lesson_steps": self.lesson_steps, "accuracy": self.accuracy}

    def restore(self, state: dict[str, Any]) -> None:
        self.lesson, self.lesson_steps = state["lesson"], state["lesson_steps"]
        self.accuracy = state["accuracy"]
