"""Who leaves together, and the tokens that their answers lead to: how they are chosen, drafts verified, ends found."""

from __future__ import annotations

import time

import numpy as np

from mythos_runtime.engine.chunks import Answer, Leaving
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.pace import Pace
from mythos_runtime.engine.queues import Queues
from mythos_runtime.engine.request import Round, Token, Work
from mythos_runtime.engine.speculation import Speculation
from mythos_runtime.errors import ResultError
from mythos_runtime.row_ports import LEAVE


class Answers:
    """Of those whose positions are through the loop."""

    def __init__(self, core: Core, queues: Queues, pace: Pace, speculation: Speculation | None) -> None:
        self._core, self._queues, self._pace, self._speculation = core, queues, pace, speculation

    def leave(self, tokens: list[Token]) -> None:
        """One call, of as many of them as fit it, unless they wait for others. The tokens that are chosen go into
        `tokens`: those, too, that were before anything failed. Who had no answer by then begins anew."""
        queues = self._queues
        if not queues.through or self._pace.waits(queues.traffic):
            return
        self._pace.left()
        leaving: list[Leaving] = []
        rows = 0
        for running in queues.through:
            job = running.sequence.job if running.sequence else None
            assert running.sequence is not None and job is not None
            rows += job.last - job.first + 1
            if rows > self._core.graphs.most_rows:
                break
            early = job.stop < running.limit
            leaving.append(Leaving(running.sequence, running.round is not None and not early, early))
        left = list(queues.through)[: len(leaving)]
        for running in left:
            del queues.through[running]
        started = time.perf_counter()
        answers = self._core.leave(leaving)
        self._pace.speed.saw(LEAVE, len(leaving), started)
        answered = 0
        try:
            for running, each, answer in zip(left, leaving, answers, strict=True):
                self._answered(running, each.early, answer, tokens)
                answered += 1
        except Exception:
            queues.send_back(running for running in left[answered:] if running.sequence is not None)
            raise

    def _answered(self, running: Work, early: bool, answer: Answer, tokens: list[Token]) -> None:
        """The tokens that an answer leads to: of drafts, all that were right, and the one behind them."""
        assert running.sequence is not None
        drafts = running.round
        if running.left:  # a piece of a prompt
            self._core.repay(running.sequence)
        elif drafts is None:
            if self._choose(running, answer.logits, int(answer.depth), tokens) and self._speculation is not None:
                self._speculation.went(int(answer.depth))
            if running.sequence is not None:
                self._core.repay(running.sequence)
        elif early:
            try:
                drafts.drafts.append(drafts.sampler.choose(answer.logits))
            except ResultError as error:
                self._queues.fail(running, error)
        else:
            self._verified(running, drafts, answer, tokens)

    def _verified(self, running: Work, drafts: Round, answer: Answer, tokens: list[Token]) -> None:
        """The tokens of a round: each draft was right if it is what its position's token turns out to be."""
        running.round = None
        before, right = len(tokens), 0
        for row, logits in enumerate(answer.logits):
            if not self._choose(running, logits, int(answer.depth[row]), tokens):
                return
            if running.finished is not None or row == len(drafts.drafts) or tokens[-1].id != drafts.drafts[row]:
                break
            right += 1
        assert self._speculation is not None
        self._speculation.saw(drafts.depth, len(drafts.drafts), right, int(answer.depth[: right + 1].max()))
        for token in tokens[before:]:
            self._speculation.went(token.depth)
        if running.sequence is not None:
            self._core.truncate(running.sequence, drafts.first + right + 1)
            running.fed = running.sequence.length
            self._core.repay(running.sequence)

    def _choose(self, running: Work, logits: np.ndarray, depth: int, tokens: list[Token]) -> bool:
        """The next token of a request; whether there was one."""
        try:
            tokens.append(running.add(running.sampler.choose(logits), depth, logits))
        except ResultError as error:  # of this request alone
            self._queues.fail(running, error)
            return False
        reason = running.ends()
        if reason is not None:
            self._queues.end(running, reason)
        return True
