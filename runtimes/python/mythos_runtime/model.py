"""A loaded model: forward passes with and without a cache.

>>> model = load("bundle")                            # model.close(), or with load("bundle") as model: frees it
>>> out = model.forward([[1, 2, 3]], max_loops=8)     # out.logits [1, 3, V], out.depth [1, 3], out.loops
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from mythos_runtime import generate as generation
from mythos_runtime import knobs, noise
from mythos_runtime.batch import Chunk, integer, make_chunk
from mythos_runtime.cache import Cache, empty_past
from mythos_runtime.dense import DenseCache
from mythos_runtime.engine.interface import AnyEngine
from mythos_runtime.engine.native import EngineOptions, NativeCache, NativeModel, NativeSession
from mythos_runtime.engine.opening import has_rows, only_python, open_core, open_native
from mythos_runtime.engine.pooled import PooledEngine
from mythos_runtime.engine.row_cache import Pool, RowCache
from mythos_runtime.engine.sequence import Policy
from mythos_runtime.engine.speculation import Speculate
from mythos_runtime.errors import CapacityError, NotVerified, RequestError, ResultError
from mythos_runtime.guards import check_numbers, one_at_a_time
from mythos_runtime.manifest import Manifest, read_manifest
from mythos_runtime.ports import check_arrays
from mythos_runtime.session import (
    ClosedSession,
    EngineChoice,
    OpLibrary,
    Options,
    Session,
    choose_backend,
    open_session,
)
from mythos_runtime.spec import LoopSpec
from mythos_runtime.tokenizer import Tokenizer, load_tokenizer
from mythos_runtime.torch_device import TorchDevice

Draw = Callable[[np.ndarray], dict[str, np.ndarray]]
Verify = Literal["hashes", "sizes"]
VERIFICATIONS: tuple[Verify, ...] = ("hashes", "sizes")
NO_CACHE = "none"
_MOST_LOOPS = (1 << 31) - 1


@dataclass(frozen=True)
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


class Model:
    """A model ready to run. Make one with `load`."""

    def __init__(
        self,
        spec: LoopSpec,
        session: Session,
        manifest: Manifest | None = None,
        folder: Path | None = None,
        options: Options | None = None,
    ) -> None:
        """From parts; the last three are needed for the tokenizer and the row graphs."""
        self.spec, self.session, self.manifest, self.folder = spec, session, manifest, folder
        self._options = options or Options()
        self._new = {port.name: str(port.group) for port in spec.ports.outputs if port.group is not None}

    def __repr__(self) -> str:
        return f"Model({self.folder or 'no bundle'}, {self.session.description})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the engine and its memory. The model cannot run any more (RequestError)."""
        self.session = ClosedSession()
        self.__dict__["pool"] = None

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
        """Whether generating runs the engine, on row graphs that the bundle has for the backend."""
        if self.manifest is None or self.folder is None or not self.session.runs_rows:
            return False
        return self._device is not None or has_rows(self.manifest)

    @property
    def _device(self) -> TorchDevice | None:
        return getattr(self.session, "device", None)

    @property
    def _options_of_rows(self) -> Options:
        return replace(self._options, provider=getattr(self.session, "provider", self._options.provider))

    @cached_property
    def pool(self) -> Pool | None:
        """What runs the row graphs where the C++ runtime does not: ONNX Runtime or PyTorch."""
        if not self.runs_rows or self._native is not None:
            return None
        assert self.folder is not None and self.manifest is not None
        return Pool(open_core(self.folder, self.manifest, self._options_of_rows, self._device))

    @property
    def _native(self) -> NativeModel | None:
        """The C++ runtime, where it runs the model."""
        return self.session.model if isinstance(self.session, NativeSession) else None

    def engine(self, most_running: int = 64, chunk: int = 64, speculate: Speculate = "off") -> AnyEngine:
        """An engine on this model: many requests at once, on a memory that grows with what they need.

        Several engines share that memory, each for one thread at a time; requests claim it when they are submitted.
        Close an engine that still has some.

        Args:
            most_running, chunk: see `engine.Engine`.
            speculate: "auto", "off", or the loops after which a draft is taken.

        Raises:
            RequestError: this backend runs no row graphs.
        """
        if isinstance(self.session, ClosedSession):
            self.session.run({})
        if not self.runs_rows:
            raise RequestError(f"the backend {self.session.name} runs the whole model in one call, and no requests")
        if self._native is not None:
            return self._native.engine(EngineOptions(most_running=most_running, chunk=chunk, speculate=speculate))
        assert self.pool is not None
        return PooledEngine(self.pool, most_running, chunk, speculate)

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
        if not self.runs_rows:
            if policy not in (None, "full"):
                raise RequestError(
                    f"the backend {self.session.name} runs the whole model in one call, which takes the cache policy "
                    f"full only, found {policy!r}"
                )
            return DenseCache(batch, capacity, self.spec, max_loops, self.session.store)
        if self._native is not None:
            return self._native.new_cache(batch, capacity, max_loops, policy or "lazy")
        assert self.pool is not None
        return RowCache(self.pool, batch, capacity, self.spec, max_loops, policy or "lazy")

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
                cache, it is the cache's.
            halt_threshold: where the exit rule (`spec.exit`) lets a token halt; default: as trained. math.inf: never.
            cache: read, and extended by the new tokens. Without one, the tokens are whole sequences.
            initial_state: float32 [B, T, S], of models that draw a state before the first loop; default: drawn.
            state_seed: what it is drawn with, whatever the batch and the chunks.

        Raises:
            RequestError: an argument is not what is described here, or another thread is using the cache.
            CapacityError: the tokens do not fit the cache or max_seq_len. Nothing was computed or written.
            ResultError: the engine returned what cannot be right, NaN among it. Nothing was written to the cache.
        """
        chunk = make_chunk(ids, self.spec.vocab_size, lengths, valid)
        loops = self._loops(max_loops, cache)
        threshold = np.array(self.threshold(halt_threshold), np.float32)
        draw = self._initial(initial_state, state_seed)
        if cache is not None and cache.spec is not self.spec and cache.spec != self.spec:
            raise RequestError("the cache was made for another model; make one with this model's new_cache")
        if cache is not None and cache.batch != chunk.ids.shape[0]:
            raise RequestError(f"ids have {chunk.ids.shape[0]} rows, the cache has {cache.batch}")
        if isinstance(cache, RowCache | NativeCache):
            if cache.owner not in (self.__dict__.get("pool"), self._native) and not isinstance(
                self.session, ClosedSession
            ):
                raise RequestError("the cache was made by another model; make one with this model's new_cache")
            return self._on_rows(cache, chunk, float(threshold), draw, state_seed)
        assert cache is None or isinstance(cache, DenseCache)
        if cache is None and self._native is not None:
            drawn = draw(chunk.positions(np.zeros(len(chunk.ids), np.int64))).get("initial_state")
            started = time.perf_counter()
            logits, depth, ran = self._native.forward(chunk, float(threshold), state_seed, drawn, loops)
            return Output(logits, depth, ran, NO_CACHE, time.perf_counter() - started)
        inputs = self._inputs(chunk, loops, threshold, cache, draw)
        started = time.perf_counter()
        outputs = self.session.run(inputs)
        seconds = time.perf_counter() - started
        ran = self._check(outputs, chunk, loops, cache)
        if cache is not None:
            cache.append({group: outputs[name] for name, group in self._new.items()}, chunk.valid)
        return Output(outputs["logits"], outputs["depth"], ran, NO_CACHE if cache is None else "full", seconds)

    def _on_rows(
        self, cache: RowCache | NativeCache, chunk: Chunk, threshold: float, draw: Draw, state_seed: int
    ) -> Output:
        if isinstance(self.session, ClosedSession):
            self.session.run({})
        cache.check_room(chunk.counts)
        drawn = draw(chunk.positions(cache.lengths))
        started = time.perf_counter()
        logits, depth, ran = cache.forward(chunk, threshold, state_seed, drawn.get("initial_state"))
        seconds = time.perf_counter() - started
        return Output(logits, depth, ran, cache.policy, seconds)

    def generate(self, ids: Any, **options: Any) -> Iterator[generation.Step]:
        """Generate token by token; see `mythos_runtime.generate.generate` for the options."""
        return generation.generate(self, ids, **options)

    def generate_all(self, ids: Any, **options: Any) -> generation.GenerationResult:
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

    def threshold(self, halt_threshold: float | None) -> float:
        """The float32 that a call runs with: what is asked for, or as trained (NaN where the model has none).

        Raises:
            RequestError: the model has no threshold, or not this one.
        """
        return knobs.halt_threshold(self.spec, halt_threshold)

    def _initial(self, given: Any, seed: int) -> Draw:
        """What makes the graph's input `initial_state` of the positions; nothing where the model has none."""
        tensor = self.spec.initial
        seed = integer(seed, "state_seed", 0, (1 << 64) - 1)
        if tensor is None:
            if given is not None:
                raise RequestError(f"this model ({self.spec.family}) has no initial_state: its first state is computed")
            return lambda positions: {}
        if given is None:
            return lambda positions: {"initial_state": noise.initial_state(tensor, positions, seed)}
        try:
            array = np.ascontiguousarray(given, np.float32)
        except (TypeError, ValueError) as error:
            raise RequestError(f"initial_state should be float32 [B, T, {tensor.dims[-1]}]: {error}") from error
        if not np.isfinite(array).all():
            raise RequestError("initial_state holds NaN or infinite values")

        def check(positions: np.ndarray) -> dict[str, np.ndarray]:
            expected = (*positions.shape, tensor.dims[-1])
            if array.shape != expected:
                raise RequestError(f"initial_state has shape {list(array.shape)}, expected {list(expected)}")
            return {"initial_state": array}

        return check

    def _inputs(
        self, chunk: Chunk, loops: int, threshold: np.ndarray, cache: DenseCache | None, draw: Draw
    ) -> dict[str, np.ndarray]:
        """The graph's inputs; every reason to refuse the tokens is found here."""
        batch = chunk.ids.shape[0]
        if cache is None:
            longest = int(chunk.counts.max())
            if longest > self.spec.max_seq_len:
                raise CapacityError(
                    f"a sequence of {longest} tokens exceeds the {self.spec.max_seq_len} that this model takes "
                    "(max_seq_len)"
                )
            past, past_lengths = empty_past(self.spec, batch, 0, loops), np.zeros(batch, np.int64)
        else:
            cache.check_room(chunk.counts)
            past, past_lengths = cache.past, cache.lengths
        positions = chunk.positions(past_lengths)
        values = {
            "ids": chunk.ids,
            "positions": positions,
            "past_lengths": past_lengths,
            "max_loops": np.array(loops, np.int64),
            "halt_threshold": threshold,
            "early_exit": np.array(cache is None),
            **draw(positions),
        }
        return self.spec.ports.by_role(values, past)

    # -- the result ---------------------------------------------------------------------------------------------------

    def _check(self, outputs: dict[str, np.ndarray], chunk: Chunk, max_loops: int, cache: Cache | None) -> int:
        """Loops that ran, after holding the outputs against the contract (ResultError).

        Graph compilers have been seen to run a loop once too often, so the counter is not taken on trust.
        """
        depths = max(max_loops if cache is None else cache.max_loops, 1)
        symbols = {"B": chunk.ids.shape[0], "T": chunk.ids.shape[1], "N": depths}
        check_arrays(self.spec.ports.outputs, outputs, symbols, _wrong_output)
        early_exit = cache is None
        ran, deepest = int(outputs["loops"]), int(outputs["depth"].max())
        if not deepest <= ran <= max_loops or (not early_exit and ran != max_loops):
            wanted = f"{deepest} to {max_loops}" if early_exit else str(max_loops)
            raise ResultError(
                f"the engine ran {ran} loops, expected {wanted} (max_loops {max_loops}, deepest token {deepest}); "
                f"its results cannot be trusted ({self.session.description})"
            )
        check_numbers(outputs["logits"], chunk.valid, self.session.description)
        return ran


def _wrong_output(text: str) -> ResultError:
    return ResultError(f"the engine's output {text}")


def load(
    path: str | Path,
    backend: str | None = None,
    threads: int | None = None,
    verify: Verify = "hashes",
    *,
    provider: str = "auto",
    op_library: OpLibrary = "auto",
    weights: str | Path | None = None,
    engine: EngineChoice = "auto",
) -> Model:
    """Load a bundle.

    Args:
        path: the bundle's folder.
        backend: onnxruntime, tensorrt or eager; default: the first of these that the bundle has a file for.
        threads: CPU threads; default: the engine's choice.
        verify: what of the bundle's files is held against the manifest: "hashes", or only "sizes", which reads none.
        provider: for onnxruntime and eager: cpu, cuda (or fail), or auto (cuda where it works).
        op_library: native operators for onnxruntime; see `mythos_runtime.session.Options`.
        weights: of a bundle whose weights are in files outside of it (--weights link): where these are, if not where
            they were at the export; the file, or a folder. Their content is checked at every load; with "sizes" only
            that of files which are named here is not.
        engine: who runs the model on the CPU; see `mythos_runtime.session.Options`.

    Raises:
        BundleError: the bundle is damaged, incomplete, of an unknown version, or not a bundle.
        BackendMissing: this machine lacks something; the message says what to install.
    """
    if verify not in VERIFICATIONS:
        raise RequestError(f"verify should be {' or '.join(VERIFICATIONS)}, found {verify!r}")
    place = None if weights is None else Path(weights)
    options = Options(threads, provider, op_library, place, verify == "hashes", engine)
    folder = Path(path)
    manifest = read_manifest(folder, verify_hashes=verify == "hashes")
    if manifest.doubt is not None:
        warnings.warn(f"{folder}: {manifest.doubt}", NotVerified, stacklevel=2)
    opening = partial(open_session, folder, manifest, backend, options)
    native = open_native(folder, manifest, options) if choose_backend(manifest, backend) == "onnxruntime" else None
    if native is None and engine == "native":
        raise only_python(f"{folder} as it is asked for here")
    session = opening() if native is None else NativeSession(native, opening)
    return Model(manifest.spec, session, manifest, folder, options)
