"""Token by token, for a batch of prompts: the engine's requests, handed out one step for all rows at a time.

Backends without row graphs run the whole model for each step instead, every loop of it.

>>> for step in model.generate([[1, 2, 3]], max_new_tokens=16):
...     print(step.tokens, step.depth)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Unpack

import numpy as np

from mythos_runtime.batch import integer, pad_rows, split_prompts
from mythos_runtime.cache import Cache
from mythos_runtime.engine.interface import AnyEngine
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.request import Budget, Request, Running
from mythos_runtime.engine.sequence import Policy
from mythos_runtime.engine.speculation import Speculate
from mythos_runtime.errors import CapacityError, RequestError
from mythos_runtime.generate_options import GenerateOptions
from mythos_runtime.row_ports import MOST_LOOPS
from mythos_runtime.sampling import Sampler, SamplingOptions
from mythos_runtime.spec import LoopSpec


class Model(Protocol):
    """What generating needs of `mythos_runtime.model.Model`."""

    spec: LoopSpec

    def new_cache(
        self, batch: int, capacity: int, max_loops: int | None = None, policy: Policy | None = None
    ) -> Cache: ...

    def threshold(self, halt_threshold: float | None) -> float: ...

    @property
    def eos(self) -> frozenset[int]: ...

    @property
    def runs_rows(self) -> bool: ...

    def engine(self, options: EngineOptions) -> AnyEngine: ...

    def check_open(self) -> None: ...

    @property
    def forward(self) -> Callable[..., Any]: ...


NO_TOKEN = -1  # stands in a step for a row that has finished
EOS, STOP, LENGTH = "eos", "stop", "length"


@dataclass(frozen=True)
class Step:
    """One token for every row that is still going.

    Attributes:
        tokens: int64 [B], the new ids; -1 for a row that had finished before.
        depth: int32 [B], loops that the position behind each choice took; 0 for a finished row.
        loops: the most of them; where the whole model runs, those that ran.
        seconds: time in the engine since the last step; of the first step, for the whole prefill. Rows run ahead of
            each other, and several tokens may come of one round of drafts.
        finished: per row, "eos", "stop" or "length" once it has ended, else None.
        capped: bool [B], whether a budget kept the position from going deeper.
    """

    tokens: np.ndarray
    depth: np.ndarray
    loops: int
    seconds: float
    finished: tuple[str | None, ...]
    capped: np.ndarray


@dataclass(repr=False)
class GenerationResult:
    """Everything a generation gave: per row its ids, their depths and why it ended; per step the loops."""

    tokens: list[list[int]]
    depth: list[list[int]]
    loops: list[int] = field(default_factory=list)
    stop_reasons: list[str | None] = field(default_factory=list)
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all rows after the first step, over the engine's time for them; 0 where there was one step."""
        decoded = sum(len(row) for row in self.tokens) - sum(1 for row in self.tokens if row)
        return decoded / self.decode_seconds if self.decode_seconds > 0 else 0.0

    def __repr__(self) -> str:
        counts = [len(row) for row in self.tokens]
        return (
            f"GenerationResult({len(counts)} row{'s' if len(counts) != 1 else ''}, {sum(counts)} tokens, "
            f"{sum(map(sum, self.depth)) / max(sum(counts), 1):.1f} loops a token, ended by "
            f"{', '.join(sorted({str(reason) for reason in self.stop_reasons}))})"
        )


def generate(
    model: Model,
    ids: Any,
    *,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    eos: int | Sequence[int] | None = None,
    stop: Sequence[Sequence[int]] = (),
    max_loops: int | None = None,
    halt_threshold: float | None = None,
    policy: Policy | None = None,
    prefill_chunk: int = 256,
    state_seed: int = 0,
    loops_per_token: float | None = None,
    latency_ms: float | None = None,
    speculate: Speculate = "off",
) -> Iterator[Step]:
    """Generate for a batch of prompts of any lengths; arguments are checked at once, the work is done as it is read.

    Args:
        ids: integers [B, T] or [T], or one list per prompt.
        max_new_tokens: default and most: the configuration's max_output_tokens, as far as max_seq_len reaches.
        temperature, top_k, top_p, min_p, repetition_penalty, seed: see `mythos_runtime.sampling`; default greedy.
        state_seed: what the first states are drawn with, of models that draw them.
        eos: ids that end a row; default: the bundle's; (): none. stop: sequences of ids that end a row. Both stay in
            the result.
        max_loops, halt_threshold: as for `Model.forward`. policy: as for `Model.new_cache`.
        prefill_chunk: the most tokens of a prompt per call of a graph.
        loops_per_token, latency_ms: budgets: new tokens halt earlier than the model would where they have to, and
            `Step.capped` says which. loops_per_token is kept on average; latency_ms by what calls took lately.
        speculate: "off"; "auto": draft tokens from early loops where that should pay; or the loops after which a draft
            is taken. It changes the speed, never the tokens.

    Raises:
        RequestError, CapacityError: before anything is computed. RequestError also at a step after the model was
            closed.
    """
    spec = model.spec
    prompts = split_prompts(ids, spec.vocab_size)
    options = SamplingOptions(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    integer(prefill_chunk, "prefill_chunk", 1)
    longest = max(len(prompt) for prompt in prompts)
    room = spec.max_seq_len - longest + 1  # the last token chosen is never fed back
    if room < 1:
        raise CapacityError(f"a prompt of {longest} tokens exceeds the {spec.max_seq_len} that this model takes")
    if max_new_tokens is None:
        count = min(spec.max_output_tokens, room)
    else:
        count = integer(max_new_tokens, "max_new_tokens", 1)
        if count > spec.max_output_tokens:
            raise RequestError(f"max_new_tokens is {count}, but this model allows {spec.max_output_tokens}")
        if count > room:
            raise CapacityError(
                f"{longest} prompt tokens and {count} new ones exceed the {spec.max_seq_len} that this model takes "
                f"(max_seq_len); at most {room} new ones fit"
            )
    given = model.eos if eos is None else [eos] if isinstance(eos, int) else eos
    ends = {integer(end, "eos", 0) for end in given}
    stops = [[integer(token, "stop", 0) for token in sequence] for sequence in stop]
    if any(not sequence for sequence in stops):
        raise RequestError("a stop sequence is empty; it should hold at least one id")
    seed_of_states = integer(state_seed, "state_seed", 0, (1 << 64) - 1)
    model.threshold(halt_threshold)  # checked before memory is taken
    budget = Budget(loops_per_token, latency_ms)
    if not model.runs_rows:
        if budget:
            raise RequestError("a budget needs the row graphs of a bundle, which this backend does not run")
        cache = model.new_cache(len(prompts), longest + count - 1, max_loops, policy)
        call = {"cache": cache, "halt_threshold": halt_threshold, "state_seed": seed_of_states}
        samplers = [Sampler(options, row, spec.vocab_size, prompt) for row, prompt in enumerate(prompts)]
        return _steps(model, prompts, samplers, count, prefill_chunk, ends, stops, call)
    limit = spec.trained_loops if max_loops is None else integer(max_loops, "max_loops", 0, MOST_LOOPS)
    engine = model.engine(EngineOptions(most_running=len(prompts), chunk=prefill_chunk, speculate=speculate))
    running = [
        engine.submit(
            Request(
                prompt.tolist(),
                count,
                limit,
                halt_threshold,
                policy or "lazy",
                options,
                frozenset(ends),
                tuple(tuple(sequence) for sequence in stops),
                row,
                seed_of_states,
                budget,
            )
        )
        for row, prompt in enumerate(prompts)
    ]
    return _engine_steps(model, engine, running)


def _engine_steps(model: Model, engine: AnyEngine, running: list[Running]) -> Iterator[Step]:
    """Tick until every row has its next token; rows that are ahead wait to be told of."""
    number = 0
    try:
        while any(row.finished is None or len(row.tokens) > number for row in running):
            model.check_open()
            started = time.perf_counter()
            while any(row.finished is None and len(row.tokens) <= number for row in running):
                engine.tick()
            seconds = time.perf_counter() - started
            for row in running:
                if row.error is not None:
                    raise row.error
            going = [row if len(row.tokens) > number else None for row in running]
            depth = np.array([row.depth[number] if row else 0 for row in going], np.int32)
            yield Step(
                tokens=np.array([row.tokens[number] if row else NO_TOKEN for row in going], np.int64),
                depth=depth,
                loops=int(depth.max()),
                seconds=seconds,
                finished=tuple(row.finished if len(row.tokens) <= number + 1 else None for row in running),
                capped=np.array([bool(row and row.capped[number]) for row in going]),
            )
            number += 1
    finally:  # at any moment, by the garbage collector of any thread
        engine.close()


def _steps(
    model: Model,
    prompts: list[np.ndarray],
    samplers: list[Sampler],
    count: int,
    prefill_chunk: int,
    ends: set[int],
    stops: list[list[int]],
    call: dict[str, Any],
) -> Iterator[Step]:
    rows = len(prompts)
    generated: list[list[int]] = [[] for _ in prompts]
    finished: list[str | None] = [None] * rows
    logits, depth, loops, seconds = _prefill(model, prompts, prefill_chunk, call)
    for number in range(1, count + 1):
        going = [row for row in range(rows) if finished[row] is None]
        tokens = np.full(rows, NO_TOKEN, np.int64)
        for row in going:
            tokens[row] = token = samplers[row].choose(logits[row])
            generated[row].append(token)
            if token in ends:
                finished[row] = EOS
            elif any(generated[row][-len(sequence) :] == sequence for sequence in stops):
                finished[row] = STOP
            elif number == count:
                finished[row] = LENGTH
        yield Step(tokens, depth, loops, seconds, tuple(finished), np.zeros(rows, bool))
        valid = np.array([reason is None for reason in finished])
        if not valid.any():
            return
        out = model.forward(np.where(valid, tokens, 0)[:, None], valid=valid[:, None], **call)
        logits, depth, loops, seconds = out.logits[:, 0], out.depth[:, 0], out.loops, out.seconds


def _prefill(
    model: Model, prompts: list[np.ndarray], size: int, call: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Logits [B, V] and depth [B] of every prompt's last token, the most loops of a chunk, and the seconds."""
    ids, lengths = pad_rows(prompts)
    logits = np.empty((len(prompts), model.spec.vocab_size), np.float32)
    depth = np.zeros(len(prompts), np.int32)
    loops, seconds = 0, 0.0
    for start in range(0, ids.shape[1], size):
        chunk = ids[:, start : start + size]
        inside = np.clip(lengths - start, 0, chunk.shape[1])
        out = model.forward(chunk, lengths=inside, **call)
        last = np.flatnonzero((lengths > start) & (lengths <= start + chunk.shape[1]))
        logits[last], depth[last] = out.logits[last, inside[last] - 1], out.depth[last, inside[last] - 1]
        loops, seconds = max(loops, out.loops), seconds + out.seconds
    return logits, depth, loops, seconds


def generate_all(model: Model, ids: Any, **options: Unpack[GenerateOptions]) -> GenerationResult:
    """`generate` to the end; options as there."""
    result: GenerationResult | None = None
    for step in generate(model, ids, **options):
        if result is None:
            rows = len(step.tokens)
            result = GenerationResult([[] for _ in range(rows)], [[] for _ in range(rows)])
            result.prefill_seconds = step.seconds
        else:
            result.decode_seconds += step.seconds
        for row in np.flatnonzero(step.tokens != NO_TOKEN):
            result.tokens[row].append(int(step.tokens[row]))
            result.depth[row].append(int(step.depth[row]))
        result.loops.append(step.loops)
        result.stop_reasons = list(step.finished)
    assert result is not None  # at least one token is always generated
    return result
