"""What is timed: prefill and decode, by tokens, batch and depth, and the very inputs that every contestant is given."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mythos_export.bench.forced import never
from mythos_export.errors import BenchError
from mythos_runtime.model import Model
from mythos_runtime.spec import LoopSpec

AROUND, LOOP = "around", "loop"  # where a cache group stands: once, or once per loop
NEVER = "never"  # in the file of the inputs, beside the cache groups: the threshold of models that have one
PROMPT = 64  # tokens whose cache entries, repeated, fill the caches of decode


@dataclass(frozen=True)
class Workload:
    """One thing to time.

    Attributes:
        kind: prefill of whole sequences without a cache, or decode of one token per row after `held` tokens.
        tokens: new tokens per row.
        held: tokens in every row's cache.
        batch: rows.
        depth: loops to run, whatever the halting says; None leaves the halting on. Backends that run the whole model in
            one call then leave the loop where it has halted, and depths that the next token may look for are missing.
    """

    kind: Literal["prefill", "decode"]
    tokens: int
    held: int
    batch: int
    depth: int | None

    @property
    def name(self) -> str:
        size = f"{self.tokens}" if self.kind == "prefill" else f"{self.held}"
        return f"{self.kind} {size}, batch {self.batch}, {self.depth_name}"

    @property
    def depth_name(self) -> str:
        return "halting on" if self.depth is None else f"{self.depth} loop{'s' if self.depth != 1 else ''}"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Workload:
        return cls(**{key: value for key, value in values.items() if key != "name"})


def matrix(spec: LoopSpec, capacity: int | None = None, quick: bool = False) -> tuple[list[Workload], list[str]]:
    """The workloads of `mythos bench` that a model can take, and what was left out, in words.

    Prefill of 16, 128 and 512 tokens; decode after 128, 1024 and as many as `capacity` leaves room for; batch 1 and 4;
    1 loop, the trained number, and halting on, where the model halts. And prefill and decode at more depths, for the
    line of cost against depth. `quick`: batch 1, at the trained depth and with halting.
    """
    trained = spec.trained_loops
    capacity = min(capacity or 4096, spec.max_seq_len)
    prefill = [tokens for tokens in (16, 128, 512) if tokens <= spec.max_seq_len]
    held = sorted({tokens for tokens in (128, 1024) if tokens < capacity} | {capacity - 1})
    left_out = [f"prefill of {t} tokens" for t in (16, 128, 512) if t not in prefill]
    left_out += [f"decode after {t} tokens" for t in (128, 1024) if t >= capacity]
    halts = spec.exit.knob("halt_threshold") is not None
    depths: list[int | None] = [trained] if quick else [1, trained]
    depths += [None] if halts else []
    batches = (1,) if quick else (1, 4)
    chosen = [Workload("prefill", t, 0, b, d) for t, b, d in itertools.product(prefill, batches, depths)]
    chosen += [Workload("decode", 1, t, b, d) for t, b, d in itertools.product(held, batches, depths)]
    if not prefill:
        raise BenchError(f"the model takes at most {spec.max_seq_len} tokens; the shortest workload has 16")
    for depth in depth_ladder(trained):
        chosen += [Workload("prefill", prefill[min(1, len(prefill) - 1)], 0, 1, depth)]
        chosen += [Workload("decode", 1, held[0], 1, depth)]
    reason = f"the model takes at most {spec.max_seq_len} tokens, the cache was given {capacity}"
    left_out = [f"{what}: {reason}" for what in left_out]
    if not halts:
        left_out.append(f"halting on: no token of this model halts before its last loop ({spec.exit.meaning})")
    return list(dict.fromkeys(chosen)), left_out


def depth_ladder(trained: int) -> list[int]:
    """Depths for the line of cost against depth: 1, halfway, the trained number, and half as many again."""
    return sorted({1, (trained + 1) // 2, trained, trained + max(trained // 2, 1)})


@dataclass(frozen=True)
class Case:
    """A workload with its data.

    Attributes:
        ids: int64 [B, T].
        past: by cache group, as the graph takes it: [..., B, held, C], inside the loop of `loops` depths.
        loops: the depth, or the trained number.
        capacity: tokens that a cache with fixed buffers has room for, the same for all decode workloads of a run.
        threshold: the halting threshold to ask for: where a depth is forced, the one with which nothing halts. None: as
            trained, or the model has none.
    """

    workload: Workload
    ids: np.ndarray
    past: Mapping[str, np.ndarray]
    loops: int
    capacity: int
    threshold: float | None = None


def write_inputs(model: Model, workloads: Sequence[Workload], path: Path, ids_file: Path | None = None) -> None:
    """The data of all workloads into one .npz: rows of ids, the cache entries of a real prompt at every depth, and the
    threshold with which nothing halts.

    The entries of a prompt of `PROMPT` tokens are repeated to any length, so that no contestant has to fill long
    caches, and all start from the same. `ids_file` (safetensors, `input_ids` [rows, T]) replaces random ids, for
    models that halt early only on what they were trained for.
    """
    depth = max([workload.depth or 0 for workload in workloads] + [model.spec.trained_loops])
    rows = max(workload.batch for workload in workloads)
    longest = max(workload.tokens for workload in workloads)
    prompt = min(PROMPT, model.spec.max_seq_len - 1)
    ids = _ids(ids_file, model.spec.vocab_size, rows, max(longest, prompt + 1))
    cache = model.new_cache(1, prompt, depth)
    threshold = never(model)
    model.forward(ids[:1, :prompt], cache=cache, halt_threshold=threshold)
    capacity = max(workload.held for workload in workloads) + 1
    entries = cache.read()
    past = {f"{LOOP if group.per_loop else AROUND}/{group.name}": entries[group.name] for group in model.spec.caches}
    forced = {} if threshold is None else {NEVER: threshold}
    np.savez(path, allow_pickle=False, ids=ids, capacity=capacity, **forced, **past)


def _ids(file: Path | None, vocab_size: int, rows: int, tokens: int) -> np.ndarray:
    if file is None:
        return np.random.default_rng(7).integers(0, vocab_size, (rows, tokens))
    try:
        found = load_file(file)["input_ids"].astype(np.int64)
        if found.ndim != 2 or not found.size:
            raise ValueError(f"its input_ids have the shape {list(found.shape)}")
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise BenchError(f"--ids {file}: expected a safetensors file with input_ids [rows, T] ({error})") from error
    flat = np.resize(found, found.size + rows * tokens)  # questions one behind another, begun again at the end
    starts = [row * found.shape[1] % found.size for row in range(rows)]
    return np.stack([np.resize(np.roll(flat, -start), tokens) for start in starts])


def load_case(inputs: Path, workload: Workload, trained: int) -> Case:
    """One workload's data out of the file of `write_inputs`."""
    depth = trained if workload.depth is None else workload.depth
    past = {}
    with np.load(inputs) as data:
        ids, capacity = data["ids"], int(data["capacity"])
        threshold = float(data[NEVER]) if NEVER in data and workload.depth is not None else None
        for key in data.files:
            place, _, name = key.partition("/")
            if name:
                past[name] = _filled(data[key][: max(depth, 1)] if place == LOOP else data[key], workload)
    used = ids[: workload.batch, -1:] if workload.kind == "decode" else ids[: workload.batch, : workload.tokens]
    return Case(workload, np.ascontiguousarray(used), past, max(depth, 1), capacity, threshold)


def _filled(entries: np.ndarray, workload: Workload) -> np.ndarray:
    """[..., 1, prompt, C] -> [..., B, held, C], begun again where the prompt ends."""
    repeated = entries[..., np.arange(workload.held) % entries.shape[-2], :]
    shape = (*entries.shape[:-3], workload.batch, workload.held, entries.shape[-1])
    return np.ascontiguousarray(np.broadcast_to(repeated, shape))
