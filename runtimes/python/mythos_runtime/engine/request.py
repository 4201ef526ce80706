"""What somebody wants to be generated, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mythos_runtime.engine.sequence import Policy, Sequence
from mythos_runtime.errors import RuntimeBundleError
from mythos_runtime.sampling import Sampler, SamplingOptions

EOS, STOP, LENGTH, CANCELLED, ERROR = "eos", "stop", "length", "cancelled", "error"
WHOLE = (EOS, STOP, LENGTH)  # ends at which a request has all its tokens


@dataclass(frozen=True)
class Budget:
    """How deep a request's new tokens may go, on average.

    Attributes:
        loops_per_token: loops. What easy tokens leave over, hard ones may use.
        latency_ms: milliseconds, by what calls of the graphs have taken lately.
    """

    loops_per_token: float | None = None
    latency_ms: float | None = None

    def __bool__(self) -> bool:
        return self.loops_per_token is not None or self.latency_ms is not None


@dataclass(frozen=True)
class Request:
    """What somebody wants to be generated.

    Attributes:
        prompt: ids, one or more.
        max_loops, halt_threshold: of its positions; default: as trained.
        policy: see `engine.sequence.Sequence`. All but `share` give the same.
        eos: ids that end it. stop: sequences of ids that end it. Both stay in the result.
        row: which of a batch's random numbers it draws (`mythos_runtime.sampling`).
        state_seed: what its first states are drawn with, where the model draws them.
        budget: lets tokens halt earlier than the model would; None: the engine's, if it has one.
        depths: loops of the position behind each token, in place of the exit rule's; what is longer than it goes on by
            the rule. A recorded run is replayed so, and a planted one made.
    """

    prompt: Several[int]
    max_new_tokens: int
    max_loops: int | None = None
    halt_threshold: float | None = None
    policy: Policy = "lazy"
    sampling: SamplingOptions = SamplingOptions()
    eos: frozenset[int] = frozenset()
    stop: tuple[tuple[int, ...], ...] = ()
    row: int = 0
    state_seed: int = 0
    budget: Budget | None = None
    depths: tuple[int, ...] = ()


@dataclass
class Round:
    """Drafts of a request, on their way.

    Attributes:
        first: the position of the last token that is no draft.
        depth: loops that a draft is taken after.
        length: drafts to take.
        sampler: the request's, as the drafts see it.
    """

    first: int
    depth: int
    length: int
    sampler: Sampler
    drafts: list[int] = field(default_factory=list)


@dataclass(eq=False)
class Running:
    """A request on its way.

    Attributes:
        limit, threshold, budget: the request's, or as trained, or the engine's.
        tokens, depth: generated so far, and the loops of the positions behind the choices.
        capped: of each token, whether its position was not to go deeper than it did, by the budget.
        finished: why it ended; None while it has not. error: what it ended with, where that is "error".
        reused: prompt tokens whose entries were there already.
    """

    request: Request
    limit: int
    threshold: float
    budget: Budget
    tokens: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    capped: list[bool] = field(default_factory=list)
    finished: str | None = None
    error: RuntimeBundleError | None = None
    reused: int = 0


@dataclass(eq=False, kw_only=True)
class Work(Running):
    """A request on its way, as the engine sees it.

    Attributes:
        sequence: None while it waits.
        fed: of prompt, tokens and drafts, how many have entered.
        round: the drafts, where some are on their way.
        cap: of the position behind the next token, where the budget sets one.
    """

    sampler: Sampler
    sequence: Sequence | None = None
    fed: int = 0
    round: Round | None = None
    cap: int | None = None

    @property
    def left(self) -> int:
        """Tokens, drafts included, that have not entered."""
        drafts = 0 if self.round is None else len(self.round.drafts)
        return len(self.request.prompt) + len(self.tokens) + drafts - self.fed

    def next(self, count: int) -> np.ndarray:
        """The next tokens that have not entered, int64 [count]."""
        at = self.fed - len(self.request.prompt)
        if at >= 0:
            drafts = [] if self.round is None else self.round.drafts
            behind = at - len(self.tokens)
            known = self.tokens[at : at + count] if behind < 0 else drafts[behind : behind + count]
            return np.array(known, np.int64)
        return np.array([*self.request.prompt[self.fed :], *self.tokens][:count], np.int64)

    def add(self, token: int, depth: int, logits: np.ndarray) -> Token:
        """Take the next token, of a position that took so many loops."""
        capped = self.cap is not None and depth == self.cap < self.limit
        self.tokens.append(token)
        self.depth.append(depth)
        self.capped.append(capped)
        return Token(self, token, depth, capped, lambda: logits)

    def ends(self) -> str | None:
        """Why it ends with its last token; None where it does not."""
        if self.tokens[-1] in self.request.eos:
            return EOS
        if any(tuple(self.tokens[-len(ids) :]) == ids for ids in self.request.stop):
            return STOP
        return LENGTH if len(self.tokens) == self.request.max_new_tokens else None

    @property
    def kind(self) -> tuple[object, ...]:
        """What sequences have to have in common to share entries."""
        return self.limit, self.threshold, self.request.policy, self.request.state_seed

    @property
    def reserved(self) -> int:
        """States that the rest of its round will take."""
        if self.round is None or self.sequence is None:
            return 0
        return self.round.first + 1 + self.round.length - self.sequence.length

    @property
    def decoding(self) -> bool:
        """Whether all but the last token have entered, so that the next one is chosen behind the one that enters."""
        return bool(self.tokens) and self.left == 1


class Token(NamedTuple):
    """A token of a request, and what it was chosen from."""

    running: Running
    id: int
    depth: int
    capped: bool
    read_logits: Callable[[], np.ndarray]

    @property
    def logits(self) -> np.ndarray:
        """float32 [vocabulary]."""
        return self.read_logits()


@dataclass(frozen=True)
class Usage:
    """What an engine holds, and what its calls came to.

    Attributes:
        running, waiting: requests.
        pages, pages_free: of the caches. states, states_free: of positions that lag.
        prefixes: ended requests that are kept for those that begin alike.
        steps, rows, late: see `core.Core`.
        drafted, accepted: tokens that were drafted, and those that were right.
    """

    running: int = 0
    waiting: int = 0
    pages: int = 0
    pages_free: int = 0
    states: int = 0
    states_free: int = 0
    prefixes: int = 0
    steps: int = 0
    rows: int = 0
    late: int = 0
    drafted: int = 0
    accepted: int = 0
