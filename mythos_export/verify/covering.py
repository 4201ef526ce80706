"""The fixed questions of an export: few, each at many boundaries at once.

A row of a call has its own past and padding, so one call covers as many of them as it has rows. What holds for a whole
call (its size, loops, threshold, room in the cache) is walked through by lists of different lengths side by side, in
calls that leave the loop after one or two iterations. Only what needs every loop runs every loop.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from mythos_export.kernels.library import Cuts
from mythos_export.verify.cases import Question
from mythos_export.verify.coverage import (
    DEEP,
    Profiles,
    boundaries_of,
    corner,
    deepest,
    exits,
    far_positions,
    holds_full_cache,
    is_asked,
    past_lengths,
    sizes_within,
)
from mythos_export.verify.past import Past
from mythos_export.verify.trace import halting
from mythos_export.verify.truth import Truth

Array = np.ndarray
NEVER = 1e9  # a threshold that no summed probability reaches
TIE = "one token each"  # the case that ties are planted into
_ALONE = 16  # tokens that each stand alone in a row: from them those are taken that halt when it is asked for
_EXECUTIONS = 12  # of eager, each rounded otherwise
# A threshold (the model's own), loops (as trained), and whether to leave early.
_MODES = ((-1.0, None, True), (0.0, None, True), (None, 2, True), (1.5, 1, False), (None, 1, True))
# Per token of a row, real or padding; the rows of a call take them in turn.
_ROWS = ((1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))


def golden_questions(
    truth: Truth,
    cuts: Cuts,
    asking: Callable[[int, int], None] = lambda asked, of: None,
    seed: int = 0,
    profiles: Profiles | None = None,
) -> None:
    """Ask the fixed questions, and those at the ends of an engine's profiles. `asking` is told, before each, how many
    were asked of how many."""
    questions = _Questions(truth, cuts, seed)
    steps = [*questions.steps(), *questions.at_ends(profiles or {})]
    for number, step in enumerate(steps):
        asking(number, len(steps))
        step()


class _Questions:
    """Makes the questions; those further down are made of what came out of those above."""

    def __init__(self, truth: Truth, cuts: Cuts, seed: int) -> None:
        self.truth, self.cuts, self.spec = truth, cuts, truth.model.spec
        self.rng = np.random.default_rng(seed)
        self.entries: Mapping[str, Array] = {}
        self.knob = self.spec.exit.knob("halt_threshold")
        self.turn = 0
        self.tokens = self.drawn((_ALONE, 1))

    def steps(self) -> Iterator[Callable[[], None]]:
        """One a question, in order."""
        spec, longest = self.spec, self.spec.max_seq_len
        yield self.prompt
        yield self.alone
        yield lambda: self.plain("no loops", (1, min(9, longest)), 0)
        yield self.deep
        if longest > 3:
            yield self.pasts
        for tokens in sizes_within((2 * self.cuts.keys + 1,), longest):
            yield functools.partial(self.long, tokens)
        if holds_full_cache(spec):
            yield self.full
        for position in far_positions(spec):
            yield functools.partial(self.far, position)
        if longest >= 8:
            yield from self.decoding("", early_exit=False)
            yield from self.decoding(", left early", early_exit=True)
        sizes = boundaries_of(spec, self.cuts, {})["rows of a call"]
        for size in sizes:
            yield functools.partial(self.height, int(size))
        for _ in _MODES:
            yield functools.partial(self.height, None)
        if self.knob is not None:
            for loop in exits(spec):
                yield functools.partial(self.leaving, loop)

    def at_ends(self, profiles: Profiles) -> Iterator[Callable[[], None]]:
        """A few calls that are at each end of each size that a profile leaves open."""
        for name, ranges in profiles.items():
            least, most = ({size: ends[at] for size, ends in ranges.items()} for at in (0, 1))
            some = [least, most | {"tokens": least["tokens"]}, *(corner(ranges, size, most[size]) for size in most)]
            hit: set[tuple[str, int]] = set()
            for sizes in some:
                if is_asked(self.spec, sizes) and not hit.issuperset(sizes.items()):
                    hit.update(sizes.items())
                    words = ", ".join(f"{size} {value}" for size, value in sizes.items())
                    yield functools.partial(self.at_end, f"{name}: {words}", **sizes)

    # -- every loop runs ----------------------------------------------------------------------------------------------

    def prompt(self) -> None:
        """More tokens than a block of keys; what it caches is what pasts are made of.

        A few loops only, as wherever tokens that are no text attend to each other: rounding alone, at a narrow
        precision, drives such states apart, and what is measured on them would allow everything.
        """
        ids = self.drawn((1, min(self.cuts.keys + 1, self.spec.max_seq_len)))
        past = Past.empty(self.spec, 1, 0, self.few)
        inputs = past.inputs(ids, np.ones(ids.shape, bool), self.few, early_exit=False)
        outputs = self.truth.ask(Question("a prompt", inputs))
        self.entries = {group.name: outputs[self.spec.ports.of("new", group.name).name] for group in self.spec.caches}

    def alone(self) -> None:
        self.plain(TIE, self.tokens, self.spec.trained_loops, self.never)
        self.watched = self.truth.asked[-1].case

    def deep(self) -> None:
        """Loops far beyond those that were trained, which may drive any two roundings apart, and by how much they do
        is different at every loop: it is measured on many executions of the same token."""
        loops, token = deepest(self.spec), self.tokens[:1]
        self.plain(DEEP, token, loops, self.never, early_exit=False)
        again = np.repeat(token, _EXECUTIONS, 0)
        past = Past.empty(self.spec, _EXECUTIONS, 0, loops)
        inputs = past.inputs(again, np.ones(again.shape, bool), loops, self.never, early_exit=False)
        self.truth.measure(Question(DEEP, inputs), seed=0)

    def pasts(self) -> None:
        """A row for every length of the past, each with another padding; more depths than loops, NaN behind."""
        lengths = [0, *past_lengths(self.spec, self.cuts)]
        lengths += [lengths[-1]] * max(0, len(_ROWS) - len(lengths))
        real = [_ROWS[row % len(_ROWS)] for row in range(len(lengths))]
        lengths, real = [*lengths, min(2, lengths[-1])], [*real, (0, 0, 0)]
        self.behind("every past", lengths, real, self.few, self.few + 2, 1.5, early_exit=False)

    def decoding(self, name: str, early_exit: bool) -> Iterator[Callable[[], None]]:
        """Two rows of different length: a padded prefill, a chunk with a past, and one token.

        Where the loop was left early, the next call finds the deepest computed entry in place of the deeper ones.
        """
        past = Past.empty(self.spec, batch=2, capacity=12, loops=self.spec.trained_loops)
        kinds = (("prefill", (4, 2)), ("chunk", (2, 3)), ("token", (1, 1)))

        def ask(step: str, counts: Sequence[int]) -> None:
            leaves = early_exit and step == "prefill" and self.knob is not None
            ids, threshold = self.drawn((2, max(counts))), self.at_once if leaves else None
            inputs = past.inputs(ids, counts, threshold=threshold, early_exit=leaves)
            past.append(self.truth.ask(Question(f"{step}{name}", inputs)), counts)

        for step, counts in kinds[:: 2 if early_exit else 1]:
            yield functools.partial(ask, step, counts)

    # -- a loop or two ------------------------------------------------------------------------------------------------

    def long(self, tokens: int) -> None:
        """A chunk of more than two blocks of keys, padded on the left and inside."""
        real = np.ones((1, tokens), bool)
        if tokens > 6:
            real[0, :3] = real[0, tokens // 2] = False
        past = Past.empty(self.spec, 1, 0, 1)
        self.truth.ask(Question(f"{tokens} tokens", past.inputs(self.drawn((1, tokens)), real, 1)))

    def full(self) -> None:
        """The last token that there is room for."""
        self.behind("a full cache", [self.spec.max_seq_len - 1], [(1,)], 2, 2, room=0)

    def far(self, position: int) -> None:
        """A position that is far behind its past: what depends on positions alone."""
        self.behind(f"position {position}", [2], [(1, 1)], 2, 2, ahead=position - 3)

    def at_end(self, name: str, batch: int, tokens: int, capacity: int, depths: int) -> None:
        """A call of these sizes, of a loop or two."""
        held = min(capacity, self.spec.max_seq_len - tokens)
        real = [[1] * tokens] * batch
        self.behind(name, [held] * batch, real, min(2, depths), depths, early_exit=False, room=capacity - held)

    def height(self, size: int | None) -> None:
        """A call of so many rows, on one side of a tile; everything else in turn. Nothing where there was one.

        Without a size, of any, until everything had its turn.
        """
        number = self.turn
        if number >= len(_MODES) if size is None else any(a.case.real.size == size for a in self.truth.asked):
            return
        self.turn, size = number + 1, size or number + 2
        batch = next(iter(_factors(size, number, self.spec.max_seq_len)))
        tokens = size // batch
        trained = self.spec.trained_loops
        threshold, loops, early_exit = _MODES[number % len(_MODES)]
        loops = loops or (trained if self.knob is not None else 2)
        lengths = [0, *(length for length in past_lengths(self.spec, self.cuts) if length + tokens <= self.most)]
        turn = itertools.islice(itertools.cycle(lengths), number, number + batch)
        real = [[1] * tokens for _ in range(batch)]
        if tokens > 1:
            real[number % batch][(0, tokens // 2, -1)[number % 3]] = 0
        depths = loops + (0, 2, 1)[number % 3]
        held = list(turn) if number % 2 else [0] * batch
        self.behind(f"{size} rows", held, real, loops, depths, threshold, early_exit=early_exit, room=number % 2)

    def leaving(self, loop: int) -> None:
        """Everybody halts in this loop, with more allowed: a threshold between what that and the loops beside it
        reach, of the token where it has most room. Nothing where no token does."""
        who = halting(self.spec)
        if who is None or who.of is None:
            return
        reached = self.watched.trace[who.of][:, :, 0].astype(np.float64)  # [n, tokens]
        if len(reached) < loop:  # states that are no numbers end the loop
            return
        before, at = reached[: loop - 1], reached[loop - 1]
        rises = self.at_once == 0
        if rises:
            low, high = before.max(0, initial=-np.inf), at
        else:
            low, high = at, before.min(0, initial=np.inf)
        width = np.where(np.isfinite(high - low), high - low, np.abs(at))
        row = int(width.argmax())
        if not width[row] > 0:
            return
        edge = (low[row], high[row])
        middle = sum(edge) / 2 if np.isfinite(edge).all() else (high[row] / 2 if rises else low[row] * 2)
        ids = self.tokens[row : row + 1]
        self.plain(f"leaves after loop {loop}", ids, self.spec.trained_loops, float(middle))

    @functools.cached_property
    def at_once(self) -> float:
        """A threshold with which everybody halts in the first loop: rules reach it, or fall below it."""
        who = halting(self.spec)
        if who is None:
            return 0.0
        inputs = Past.empty(self.spec, 1, 0, 2).inputs(self.tokens[:1], [1], 2, 0.0, early_exit=False)
        return 0.0 if self.truth.watch(inputs)[who.name][0].all() else NEVER

    @property
    def never(self) -> float | None:
        """A threshold with which nobody halts; None where the rule has none."""
        return None if self.knob is None else NEVER if self.at_once == 0 else -NEVER

    # -- how a question is put ----------------------------------------------------------------------------------------

    @property
    def most(self) -> int:
        return self.spec.max_seq_len

    @property
    def few(self) -> int:
        """Loops: some, and no more than were trained."""
        return min(3, self.spec.trained_loops)

    def plain(
        self,
        name: str,
        ids: Array | tuple[int, int],
        loops: int,
        threshold: float | None = None,
        early_exit: bool = True,
    ) -> None:
        """Without a past."""
        ids = self.drawn(ids) if isinstance(ids, tuple) else ids
        past = Past.empty(self.spec, len(ids), 0, loops)
        self.truth.ask(
            Question(name, past.inputs(ids, np.ones(ids.shape, bool), loops, threshold, early_exit=early_exit))
        )

    def behind(
        self,
        name: str,
        lengths: Sequence[int],
        real: Sequence[Sequence[int]],
        loops: int,
        depths: int,
        threshold: float | None = None,
        early_exit: bool = True,
        ahead: int = 0,
        room: int = 3,
    ) -> None:
        """Behind a made up past."""
        shape = np.array(real).astype(bool)
        past = Past.made_up(self.spec, self.entries, lengths, max(lengths) + room, depths, self.rng)
        ids = self.drawn(shape.shape)
        self.truth.ask(Question(name, past.inputs(ids, shape, loops, threshold, early_exit, ahead)))

    def drawn(self, shape: tuple[int, ...]) -> Array:
        return self.rng.integers(0, self.spec.vocab_size, shape)


def _factors(size: int, number: int, longest: int) -> Iterator[int]:
    """Batch sizes that divide a call of so many rows, another one first for every number."""
    found = [batch for batch in range(1, size + 1) if size % batch == 0 and size // batch <= longest]
    yield found[-1 - number % len(found)]
