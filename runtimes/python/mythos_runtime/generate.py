"""Generation: prefill in chunks, then a token per row and step, streamed.

    >>> for step in model.generate([[1, 2, 3], [4, 5]], max_new_tokens=64, temperature=0.8, top_p=0.95, eos=2, seed=0):
    ...     print(step.tokens, step.depth)                  # -1 where a row has finished
    >>> result = model.generate_all([1, 2, 3], max_new_tokens=16)
    >>> result.tokens[0], result.depth[0], result.tokens_per_second

A prompt is a row; rows may have different lengths. The cache is allocated once, before the first token:
longest prompt + max_new_tokens - 1 slots per row, as the last token drawn is never fed back.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mythos_runtime.batch import integer, pad_rows, split_prompts
from mythos_runtime.cache import Cache
from mythos_runtime.errors import CapacityError, RequestError
from mythos_runtime.sampling import Sampler, SamplingOptions

if TYPE_CHECKING:
    from mythos_runtime.model import Model, Policy

FINISHED = -1
PREFILL_CHUNK = 512


@dataclass(frozen=True)
class Step:
    """One step of a batch.

    Attributes:
        index: 0 for the first token of each row, and so on.
        tokens: int64 [B], the new ids; -1 where a row had finished before.
        depth: int32 [B], loops that contributed to the position whose logits the token was drawn from; -1 likewise.
        loops: loops that ran in this step; for step 0 the most of any prefill chunk.
        seconds: time of this step; for step 0 that of the whole prefill.
        stops: per row, why it finished with this very token ("eos", "stop" or "length"), or None.
    """

    index: int
    tokens: np.ndarray
    depth: np.ndarray
    loops: int
    seconds: float
    stops: tuple[str | None, ...]


@dataclass(frozen=True)
class GenerationResult:
    """Everything that a generation gave. Lists over rows hold only the new tokens, the end token or sequence included.

    Attributes:
        tokens: per row, the new ids.
        depth: per row and new token, as in `Step`.
        loops: per step, the loops that ran.
        policy: the cache policy, "full" or "last".
        stops: per row "eos", "stop" or "length".
        seed: of the random numbers, also where none was given.
        prefill_seconds: from the start to the first token.
        decode_seconds: from the first token to the last.
        tokens_per_second: tokens of all rows after the first step per second of decoding; where there was only one
            step, its tokens per second of prefill.
    """

    tokens: list[list[int]]
    depth: list[list[int]]
    loops: list[int]
    policy: str
    stops: list[str]
    seed: int
    prefill_seconds: float
    decode_seconds: float
    tokens_per_second: float


@dataclass(frozen=True)
class _Request:
    """A checked request."""

    prompts: list[np.ndarray]
    max_new_tokens: int
    sampling: SamplingOptions
    eos: frozenset[int]
    stop: tuple[tuple[int, ...], ...]
    cache: Cache
    prefill_chunk: int
    forward: dict[str, Any]


def generate(
    model: Model,
    ids: Any,
    max_new_tokens: int | None = None,
    *,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    eos: int | Sequence[int] | None = None,
    stop: Sequence[Sequence[int]] = (),
    max_loops: int | None = None,
    halt_threshold: float | None = None,
    policy: Policy = "full",
    prefill_chunk: int = PREFILL_CHUNK,
    cache: Cache | None = None,
) -> Iterator[Step]:
    """Generate token by token.

    The request is checked, and the memory taken, when this is called; each step is computed when it is asked for.

    Args:
        ids: prompts: an array [B, T] or [T], a list of ids, or a list of lists of different lengths.
        max_new_tokens: per row, at most the model's max_output_tokens; default: as many as it and max_seq_len allow.
        temperature, top_k, top_p, min_p, repetition_penalty, seed: see `mythos_runtime.sampling`; temperature 0 is
            greedy, seed None takes a random one.
        eos: id or ids that end a row.
        stop: sequences of ids that end a row when its new tokens end in one.
        max_loops, halt_threshold, policy: as in `Model.forward`.
        prefill_chunk: prompts are read in chunks of at most this many tokens.
        cache: continue in this cache (the prompts follow what it holds); default: a new one of the size needed.

    Raises:
        RequestError: an argument is not what is described here.
        CapacityError: prompt and new tokens do not fit max_seq_len, or the cache given.
    """
    sampling = SamplingOptions(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=secrets.randbits(32) if seed is None else seed,
    )
    vocab = model.config.vocab_size
    prompts = split_prompts(ids, vocab)
    request = _Request(
        prompts=prompts,
        max_new_tokens=_new_tokens(model, max_new_tokens, prompts, cache),
        sampling=sampling,
        eos=frozenset(_ids(eos if eos is None or isinstance(eos, Sequence) else [eos], "eos", vocab)),
        stop=tuple(tuple(_ids(sequence, "a stop sequence", vocab)) for sequence in stop),
        cache=cache if cache is not None else model.new_cache(1, 1, 0),  # replaced below
        prefill_chunk=integer(prefill_chunk, "prefill_chunk", 1),
        forward={"max_loops": max_loops, "halt_threshold": halt_threshold, "policy": policy},
    )
    return _steps(model, request)
