"""A loaded model: forward passes with and without a cache.

>>> model = mythos_runtime.load("bundle")             # model.close(), or with load("bundle") as model: frees it
>>> out = model.forward([[1, 2, 3]], max_loops=8)     # out.logits [1, 3, V], out.depth [1, 3], out.loops
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np

from mythos_runtime import generate as generation
from mythos_runtime import knobs
from mythos_runtime.batch import integer, make_chunk
from mythos_runtime.cache import Cache
from mythos_runtime.dense import DenseCache
from mythos_runtime.engine.interface import AnyEngine, Rows, RowsCache
from mythos_runtime.engine.native import NativeSession
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.sequence import Policy
from mythos_runtime.errors import RequestError
from mythos_runtime.generate_options import GenerateOptions
from mythos_runtime.guards import one_at_a_time
from mythos_runtime.manifest import Manifest
from mythos_runtime.session import ClosedSession, Session
from mythos_runtime.spec import LoopSpec
from mythos_runtime.tokenizer import Tokenizer, load_tokenizer
from mythos_runtime.whole_graph import initial_of, run_graph

NO_CACHE = "none"
_MOST_LOOPS = (1 << 31) - 1


@dataclass(frozen=True, repr=False)
class Output:
    """What a forward pass gives.

    Attributes:
        logits: float32 [B, T, V]; where a token is padding they mean nothing.
        depth: int32 [B, T], loops that contributed to a token; 0 for padding.
        loops: loop iterations that ran for these tokens.
        policy: the cache's (lazy, full or share); "none" without a cache. All but share give what the model computes.
        seconds: time in the engine.
    """

    logits: np.ndarray
    depth: np.ndarray
    loops: int
    policy: str
    seconds: float

    def __repr__(self) -> str:
        return (
            f"Output(logits {self.logits.dtype} {list(self.logits.shape)}, depth {self.depth.dtype} "
            f"{list(self.depth.shape)}, loops={self.loops}, policy={self.policy!r}, seconds={self.seconds:.4g})"
        )


class Model:
    """A model ready to run. Make one with `load`."""

    def __init__(
        self,
        spec: LoopSpec,
        session: Session,
        manifest: Manifest | None = None,
        folder: Path | None = None,
        rows: Rows | None = None,
    ) -> None:
        """From parts: the whole model's graph, the bundle that its tokenizer is in, and its row graphs, which caches
        and generations run on; None: on the whole graph."""
        self.spec, self.session, self.manifest, self.folder, self.rows = spec, session, manifest, folder, rows

    def __repr__(self) -> str:
        return f"Model({self.folder or 'no bundle'}, {self.session.description})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the engine and its memory. The model cannot run any more, nor can a generation go on (RequestError)."""
        self.session, self.rows = ClosedSession(), None

    def check_open(self) -> None:
        """RequestError where the model was closed."""
        if isinstance(self.session, ClosedSession):
            self.session.run({})

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The bundle's tokenizer, or None where it has none (BackendMissing where its library is not installed)."""
        if self.manifest is None or self.folder is None:
            return None
        return load_tokenizer(self.folder, self.manifest, self.spec.vocab_size)

    @property
    def eos(self) -> frozenset[int]:
        """The ids that end a text, as the bundle has them."""
        entry = None if self.manifest is None else self.manifest.tokenizer
        return frozenset() if entry is None else frozenset(entry.eos)

    @property
    def runs_rows(self) -> bool:
        """Whether caches and generations run on row graphs, which the bundle has for the backend."""
        return self.rows is not None

    def engine(self, options: EngineOptions | None = None) -> AnyEngine:
        """An engine on this model: many requests at once, on a memory that grows with what they need.

        Several engines share that memory, each for one thread at a time; requests claim it when they are submitted.
        Close an engine that still has some.

        Raises:
            RequestError: this backend runs no row graphs, or the options cannot be.
        """
        self.check_open()
        if self.rows is None:
            raise RequestError(f"the backend {self.session.name} runs the whole model in one call, and no requests")
        return self.rows.engine(options or EngineOptions())

    def new_cache(self, batch: int, capacity: int, max_loops: int | None = None, policy: Policy | None = None) -> Cache:
        """An empty cache for `batch` rows of up to `capacity` tokens, at `max_loops` depths (default: as trained).

        Args:
            policy: what happens at the depths that a token did not run before it halted. lazy (default): they run when
                a later token needs them, exactly. full: they run at once; the only one of backends without row graphs.
                share: its deepest entry stands for them, which is approximate; what it costs depends on the model.

        Raises:
            CapacityError: capacity exceeds max_seq_len, or the memory for it is not there.
            RequestError: this backend does not have the policy.
        """
        if self.rows is not None:
            return self.rows.new_cache(batch, capacity, max_loops, policy or "lazy")
        if policy not in (None, "full"):
            raise RequestError(
                f"the backend {self.session.name} runs the whole model in one call, which takes the cache policy "
                f"full only, found {policy!r}"
            )
        return DenseCache(batch, capacity, self.spec, max_loops, self.session.store)

    @one_at_a_time
    def forward(
        self,
        ids: Any,
        *,
        lengths: Any = None,
        valid: Any = None,
        max_loops: int | None = None,
        halt_threshold: float | None = None,
        cache: Cache | None = None,
        initial_state: Any = None,
        state_seed: int = 0,
    ) -> Output:
        """Run the model on new tokens.

        Args:
            ids: integers [B, T], or [T] for a batch of one.
            lengths: integers [B]: row b's tokens from lengths[b] on are padding. Or:
            valid: booleans [B, T], False for padding.
            max_loops: most loops to run; default: the cache's, or as trained. May exceed the trained number; with a
                cache, it is the cache's, which holds 256 depths at most.
            halt_threshold: where the exit rule (`spec.exit`) lets a token halt; default: as trained. Infinite: never,
                or at once, as the rule compares.
            cache: read, and extended by the new tokens. Without one, the tokens are whole sequences.
            initial_state: float32 [B, T, S], of models that draw a state before the first loop; default: drawn.
            state_seed: what it is drawn with, whatever the batch and the chunks.

        Raises:
            RequestError: an argument is not what is described here, or another thread is using the cache.
            CapacityError: the tokens do not fit the cache or max_seq_len. Nothing was computed or written.
            ResultError: the engine returned what cannot be right, NaN among it. Nothing was written to the cache.
        """
        chunk = make_chunk(ids, self.spec.vocab_size, lengths, valid)
        self._check_cache(cache, len(chunk.ids))
        loops, threshold = self._loops(max_loops, cache), self.threshold(halt_threshold)
        draw = initial_of(self.spec, initial_state, state_seed)
        if isinstance(cache, RowsCache):
            cache.check_room(chunk.counts)
            drawn = draw(chunk.positions(cache.lengths)).get("initial_state")
            started = time.perf_counter()
            logits, depth, ran = cache.forward(chunk, threshold, state_seed, drawn)
            return Output(logits, depth, ran, cache.policy, time.perf_counter() - started)
        if cache is None and isinstance(self.session, NativeSession):
            drawn = draw(chunk.positions(np.zeros(len(chunk.ids), np.int64))).get("initial_state")
            started = time.perf_counter()
            logits, depth, ran = self.session.model.forward(chunk, threshold, state_seed, drawn, loops)
            return Output(logits, depth, ran, NO_CACHE, time.perf_counter() - started)
        assert cache is None or isinstance(cache, DenseCache)
        logits, depth, ran, seconds = run_graph(self.session, self.spec, chunk, loops, threshold, cache, draw)
        return Output(logits, depth, ran, NO_CACHE if cache is None else "full", seconds)

    def generate(self, ids: Any, **options: Unpack[GenerateOptions]) -> Iterator[generation.Step]:
        """Generate token by token; see `mythos_runtime.generate.generate` for the options, errors and what comes."""
        return generation.generate(self, ids, **options)

    def generate_all(self, ids: Any, **options: Unpack[GenerateOptions]) -> generation.GenerationResult:
        """Generate to the end and collect everything; options as `generate`."""
        return generation.generate_all(self, ids, **options)

    # -- the request --------------------------------------------------------------------------------------------------

    def _loops(self, max_loops: int | None, cache: Cache | None) -> int:
        if max_loops is None:
            return self.spec.trained_loops if cache is None else cache.max_loops
        loops = integer(max_loops, "max_loops", 0, _MOST_LOOPS)
        if cache is not None and loops != cache.max_loops:
            raise RequestError(
                f"max_loops is {loops}, but the cache holds {cache.max_loops} loop depths, the same for all its "
                f"tokens; make one with new_cache(..., max_loops={loops})"
            )
        return loops

    def _check_cache(self, cache: Cache | None, batch: int) -> None:
        """RequestError where a cache is not for this model, or not for so many rows."""
        if cache is None:
            return
        if not isinstance(cache, Cache):
            raise RequestError(f"cache should be what new_cache made, or None, found {cache!r}")
        if cache.spec is not self.spec and cache.spec != self.spec:
            raise RequestError("the cache was made for another model; make one with this model's new_cache")
        if cache.batch != batch:
            raise RequestError(f"ids have {batch} rows, the cache has {cache.batch}")
        if isinstance(cache, RowsCache):
            self.check_open()
            if self.rows is None or not self.rows.made(cache):
                raise RequestError("the cache was made by another model; make one with this model's new_cache")

    def threshold(self, halt_threshold: float | None) -> float:
        """The float32 that a call runs with: what is asked for, or as trained (NaN where the model has none).

        Raises:
            RequestError: the model has no threshold, or not this one.
        """
        return knobs.halt_threshold(self.spec, halt_threshold)
