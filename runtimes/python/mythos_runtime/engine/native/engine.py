"""An engine of the C++ runtime."""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Iterable
from ctypes import POINTER, byref, c_float, c_int64, c_size_t, c_uint64, c_void_p
from functools import partial
from pathlib import Path

import numpy as np

from mythos_runtime.batch import integer, number
from mythos_runtime.engine.admission import check as check_request
from mythos_runtime.engine.admission import check_budget
from mythos_runtime.engine.native import structs
from mythos_runtime.engine.native.library import check, free_with, load_options, open_library
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.request import CANCELLED, ERROR, Budget, Request, Running, Token, Usage
from mythos_runtime.errors import RequestError, ResultError
from mythos_runtime.row_ports import MOST_LOOPS
from mythos_runtime.session import Options
from mythos_runtime.spec import LoopSpec

_MOST, _SEED = (1 << 63) - 1, (1 << 64) - 1
_SPECULATE = {"off": 0, "auto": -1}


def options_struct(options: EngineOptions, library: ctypes.CDLL, spec: LoopSpec) -> structs.EngineOptions:
    """What the C interface takes. Raises RequestError where a budget is none, or this model cannot keep it."""
    given: structs.EngineOptions = library.mythos_default_engine_options()
    for name in ("memory", "max_loops", "most_rows", "most_running", "chunk", "prefixes"):
        value = getattr(options, name)
        if value is not None:  # what is too small C++ says
            setattr(given, name, min(integer(value, name, 0), _MOST))
    for name in ("loops_per_call", "max_lag"):  # there 0 says that there is no bound
        value = getattr(options, name)
        setattr(given, name, 0 if value is None else min(integer(value, name, 1), _MOST))
    if options.patience is not None:
        given.patience = number(options.patience, "patience")
    budget = options.budget or Budget()
    check_budget(budget, spec)
    given.loops_per_token, given.latency_ms = budget.loops_per_token or 0.0, budget.latency_ms or 0.0
    drafts = _SPECULATE.get(options.speculate) if isinstance(options.speculate, str) else None
    given.speculate = integer(options.speculate, "speculate", 1, MOST_LOOPS) if drafts is None else drafts
    return given


class NativeEngine:
    """See `interface.AnyEngine`; what `submit` and `tick` raise is what `engine.Engine` raises.

    Attributes:
        spec: the model's.
    """

    @classmethod
    def open(cls, folder: Path, spec: LoopSpec, options: Options, engine: EngineOptions) -> NativeEngine:
        """On a bundle whose files were checked already, with a memory of its own.

        Raises:
            BackendMissing: the C++ runtime is not installed, or finds no ONNX Runtime.
            BundleError, RequestError, CapacityError: as `open_engine`.
        """
        library, handle = open_library(), c_void_p()
        load, given = load_options(options), options_struct(engine, library, spec)
        opened = library.mythos_engine_open(os.fsencode(folder), byref(load), byref(given), byref(handle))
        check(library, opened)
        return cls(library, handle, spec, engine)

    def __init__(self, library: ctypes.CDLL, handle: c_void_p, spec: LoopSpec, options: EngineOptions) -> None:
        """`handle`: a mythos_engine, which is this one's from now on."""
        self.spec, self._library, self._handle = spec, library, handle
        self._budget = options.budget or Budget()
        self._running: dict[int, Running] = {}  # those that have not ended, by their numbers
        self._numbers: dict[Running, int] = {}
        self._turn, self._closed = threading.Lock(), False
        self._free = free_with(self, library.mythos_engine_free, handle)

    # -- coming and going ---------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def submit(self, request: Request) -> Running:
        running = check_request(request, self.spec, self._budget)
        given, number = _struct(request), c_uint64()
        self._call("mythos_engine_submit", byref(given), byref(number))
        self._running[number.value] = running
        self._numbers[running] = number.value
        return running

    def cancel(self, running: Running) -> None:
        number = self._numbers.pop(running, None)
        if number is not None:
            del self._running[number]
            self._call("mythos_engine_cancel", number)
            running.finished = CANCELLED

    def close(self) -> None:
        """End all requests, and free the engine. For any thread, at any moment: a call that is under way ends first."""
        self._closed = True
        for running in list(self._running.values()):
            running.finished = CANCELLED
        self._running, self._numbers = {}, {}
        if self._turn.acquire(blocking=False):  # else who has it frees, or the last who lets go of this object
            try:
                self._free()
            finally:
                self._turn.release()

    def _call(self, name: str, *arguments: object) -> None:
        """A function of the C interface on this engine, one at a time; the GIL is not held meanwhile."""
        with self._turn:
            if self._closed:
                raise RequestError("this engine was closed; open it again")
            try:
                check(self._library, getattr(self._library, name)(self._handle, *arguments))
            finally:
                if self._closed:  # meanwhile
                    self._free()

    # -- a tick -------------------------------------------------------------------------------------------------------

    def tick(self) -> list[Token]:
        found = POINTER(structs.Tick)()
        self._call("mythos_engine_tick", byref(found))
        tick = _Tick(self._library, found)
        tokens: list[Token] = []
        told, size = found.contents, self.spec.vocab_size
        all_told = ctypes.string_at(told.tokens, told.count * structs.TOKEN.size) if told.count else b""
        for request, chosen, depth, capped, reused, logits, finished, error in structs.TOKEN.iter_unpack(all_told):
            running = self._running.get(request)
            if running is None:  # closed meanwhile
                continue
            running.reused = reused
            if chosen >= 0:
                running.tokens.append(chosen)
                running.depth.append(depth)
                running.capped.append(bool(capped))
                tokens.append(Token(running, chosen, depth, bool(capped), partial(tick.logits, logits, size)))
            reason = ctypes.string_at(finished)
            if reason:
                self._running.pop(request, None)
                self._numbers.pop(running, None)
                running.finished = reason.decode()
                if running.finished == ERROR:
                    running.error = ResultError(ctypes.string_at(error).decode(errors="replace"))
        return tokens

    # -- what it holds ------------------------------------------------------------------------------------------------

    @property
    def usage(self) -> Usage:
        found = structs.Usage()
        self._call("mythos_engine_usage", byref(found))
        return Usage(**{name: getattr(found, name) for name in Usage.__dataclass_fields__})

    @property
    def pages_running(self) -> int:
        found = c_int64()
        self._call("mythos_engine_pages_running", byref(found))
        return found.value


class _Tick:
    """What a tick gave, freed when nobody looks at its logits any more."""

    def __init__(self, library: ctypes.CDLL, found: ctypes._Pointer[structs.Tick]) -> None:
        self._free, self._found = library.mythos_tick_free, found

    def __del__(self) -> None:
        self._free(self._found)

    def logits(self, address: int, count: int) -> np.ndarray:
        """float32 [count] at an address in it."""
        place = (c_float * count).from_address(address)
        place.tick = self  # type: ignore[attr-defined]  # holds it
        return np.frombuffer(memoryview(place), np.float32)


def _struct(request: Request) -> structs.Request:
    sampling, stops = request.sampling, [_ids(sequence) for sequence in request.stop]
    own = request.budget
    given = structs.Request(
        prompt=_ids(request.prompt),
        prompt_count=len(request.prompt),
        max_new_tokens=min(request.max_new_tokens, _MOST),
        max_loops=-1 if request.max_loops is None else request.max_loops,
        halt_threshold=math.nan if request.halt_threshold is None else request.halt_threshold,
        policy=request.policy.encode(),
        temperature=sampling.temperature,
        top_k=min(sampling.top_k, _MOST),
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        row=integer(request.row, "row", 0, _SEED),
        state_seed=integer(request.state_seed, "state_seed", 0, _SEED),
        eos=_ids(request.eos),
        eos_count=len(request.eos),
        stop=(POINTER(c_int64) * len(stops))(*(ctypes.cast(ids, POINTER(c_int64)) for ids in stops)),
        stop_lengths=(c_size_t * len(stops))(*map(len, stops)),
        stop_count=len(stops),
        loops_per_token=math.nan if own is None else own.loops_per_token or 0.0,
        latency_ms=math.nan if own is None else own.latency_ms or 0.0,
        depths=_ids(request.depths),
        depth_count=len(request.depths),
    )
    given.kept = stops  # type: ignore[attr-defined]  # whose addresses it has
    return given


def _ids(ids: Iterable[int]) -> ctypes.Array[c_int64]:
    """Those that no integer of C holds stand for nothing either way."""
    values = [max(min(int(each), _MOST), -_MOST) for each in ids]
    return (c_int64 * len(values))(*values)
