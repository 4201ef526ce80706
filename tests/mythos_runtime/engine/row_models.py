"""Small models whose row graphs the engine's tests run, and engines over them that fill freed memory with NaN."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mythos_export.capture import Captured, capture_rows
from mythos_export.lower import lower_rows
from mythos_export.targets.cuda_lines import write_lines
from mythos_export.weights_file import store_model
from mythos_model import LoopedModel, MythosConfig, MythosModel
from mythos_runtime.batch import make_chunk
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.device.captures import Captures
from mythos_runtime.engine.device.graphs import DeviceGraphs
from mythos_runtime.engine.device.memory import DeviceStates, TorchPlace
from mythos_runtime.engine.device.programs import cut
from mythos_runtime.engine.graphs import RowGraphs
from mythos_runtime.engine.memory import Memory, Room
from mythos_runtime.engine.ort_device.device import OrtDevice
from mythos_runtime.engine.ort_device.opening import OrtRows
from mythos_runtime.engine.pages import PagedCache, Table
from mythos_runtime.engine.part import Part
from mythos_runtime.engine.row_cache import Pool, RowCache
from mythos_runtime.engine.sequence import Sequence
from mythos_runtime.engine.states import States
from mythos_runtime.ort import OrtSession
from mythos_runtime.ports import Ports
from mythos_runtime.program import WEIGHTS
from mythos_runtime.row_ports import LOOPS, PAGE, STEP, loop_ports
from mythos_runtime.session import Options
from mythos_runtime.spec import CacheGroup, LoopSpec

POSITIONS = 96  # three pages
FAR_POSITIONS = 1 << 20
VOCABULARY = 50
_NAN_BYTES = -1  # two of them are a scale that is NaN


def config(attention: str) -> MythosConfig:
    """Halting at different depths: about 4 of 5 loops at the usual threshold, about 3 at one half."""
    return MythosConfig(
        vocab_size=VOCABULARY,
        dim=32,
        n_heads=4,
        n_kv_heads=2,
        max_seq_len=POSITIONS,
        max_loop_iters=5,
        attn_type=attention,
        kv_lora_rank=16,
        q_lora_rank=24,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        n_experts=4,
        n_experts_per_tok=2,
        n_shared_experts=1,
        expert_dim=16,
        lora_rank=4,
        prelude_layers=1,
        coda_layers=1,
        max_output_tokens=64,
    )


def far_config(attention: str) -> MythosConfig:
    """As long as a model may be, and so narrow that a cache of it fits: eight numbers a line."""
    return replace(
        config(attention),
        n_heads=2,
        n_kv_heads=1,
        max_seq_len=FAR_POSITIONS,
        max_loop_iters=2,
        dim=16 if attention == "mla" else 8,
        kv_lora_rank=4,
        qk_rope_head_dim=4,
    )


def far_page(depth: int, slot: int, width: int) -> np.ndarray:
    """A page of a past that nobody computed, float32 [PAGE, width]; runtimes/cpp/tests/schedule has it, too."""
    at = np.arange(PAGE * width).reshape(PAGE, width)
    return ((depth * 11 + slot * 29 + at * 7) % 31 - 15).astype(np.float32) / 16


def fill_far(core: Core, sequence: Sequence, length: int) -> None:
    """Give an empty sequence a past of whole pages at the price of one: the same page again and again."""
    assert length % PAGE == 0

    def fill(cache: PagedCache, table: Table, depth: int) -> None:
        cache.extend(table, 0, PAGE - 1)
        for slot, memory in enumerate(cache.memory):
            memory[table[0]] = far_page(depth, slot, memory.shape[-1])
        for _ in range(length // PAGE - 1):
            cache.hold(table[0])
            table.append(table[0])

    if core.around is not None:
        fill(core.around, sequence.around, 0)
    for depth, table in enumerate(sequence.loop):
        fill(core.loop, table, depth)
    sequence.length = sequence.answered = length
    sequence.filled = [length] * sequence.limit


@dataclass(eq=False)
class RowModel:
    """A model, the folder of its row graphs, and the program that they are of."""

    model: LoopedModel
    folder: Path
    captured: Captured

    @classmethod
    def openmythos(
        cls,
        attention: str,
        folder: Path,
        far: bool = False,
        int8_cache: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> RowModel:
        given = far_config(attention) if far else config(attention)
        model = MythosModel(given).reset_parameters(1, halt_bias=-0.5).to(dtype).with_int8_cache(int8_cache)
        return cls.of(model.eval().requires_grad_(False), folder)

    @classmethod
    def of(cls, model: LoopedModel, folder: Path) -> RowModel:
        weights = store_model(model, folder / WEIGHTS)
        captured = capture_rows(weights.model)
        assert captured is not None
        lower_rows(captured, weights)
        return cls(model, folder, captured)

    def core(
        self,
        *,
        threads: int = 1,
        rows: int = 64,
        around_pages: int = 40,
        loop_pages: int = 160,
        lines: int = 400,
        most_loops: int = 16,
    ) -> Core:
        """An engine's core with little memory, NaN in all that is nobody's. `most_loops` of a call; 1: by the step as
        it is."""
        spec = self.model.spec

        def cache(group: CacheGroup, pages: int) -> PagedCache:
            made = PagedCache(group.slots, pages, group.page_width, np.dtype(group.page_dtype))
            nothing = _NAN_BYTES if group.rounded else np.nan
            made.memory[:] = nothing
            made.freed = lambda page: made.memory[:, page].fill(nothing)
            return made

        loops = {LOOPS: loop_ports(spec.graphs[STEP])}

        def open_graph(name: str) -> OrtSession:
            file, options = self.folder / f"{name}.onnx", Options(threads, provider="cpu")
            return OrtSession(file, (spec.graphs | loops)[name], options)

        layers, per_loop = spec.cache("layers"), spec.cache("loop")
        around = None if layers is None else cache(layers, around_pages)
        assert per_loop is not None
        loop = cache(per_loop, loop_pages)
        states = States(spec, lines)
        states.freed = partial(_forget_states, states)
        memory = Memory(around, loop, states)
        step = Part(loops[LOOPS], open_graph(LOOPS), rows, spec.max_seq_len) if most_loops > 1 else None
        core = Core(RowGraphs(spec, open_graph, memory, rows, spec.max_seq_len, step), memory)
        core.graphs.most_loops = min(most_loops, core.graphs.most_loops)
        return core

    @cached_property
    def programs(self) -> dict[str, Any]:
        """The row graphs for PyTorch."""
        return cut(self.captured.program.module(), self.model.spec.graphs)

    @cached_property
    def ort_rows(self) -> OrtRows:
        """The row graphs in ONNX Runtime on the CPU in a device's place."""
        spec = self.model.spec
        write_lines(spec, self.folder)

        def open_graph(file: str, ports: Ports) -> OrtSession:
            return OrtSession(self.folder / file, ports, Options(1, provider="cpu"))

        return OrtRows.of(spec, OrtDevice("cpu"), open_graph)

    def ort_core(self, *, rows: int = 64, lines: int = 400) -> Core:
        """A core over `ort_rows`, NaN in all that is nobody's."""
        return core_of(self.ort_rows, rows=rows, lines=lines)

    def device_core(self, captures: Captures, *, rows: int = 64, lines: int = 400) -> Core:
        """A core in PyTorch on the CPU, NaN in all that is nobody's."""
        spec, place = self.model.spec, TorchPlace(torch, "cpu")
        memory = Memory.with_room(spec, Room(40, 160, lines), place, partial(DeviceStates, place=place))
        for cache in (memory.around, memory.loop):
            assert cache is not None
            nothing = torch.nan if cache.memory.is_floating_point() else _NAN_BYTES
            cache.memory.fill_(nothing)
            cache.freed = partial(_forget, cache, nothing)
        return Core(DeviceGraphs(spec, self.programs, place, captures, memory, rows), memory)


def core_of(graphs: OrtRows, *, rows: int = 64, lines: int = 400) -> Core:
    """A core in ONNX Runtime on the CPU in a device's place, NaN in all that is nobody's."""
    memory = graphs.memory(Room(40, 160, lines))
    for cache in (memory.around, memory.loop):
        if cache is not None:
            nothing = np.nan if cache.memory.buffer.array.dtype.kind == "f" else _NAN_BYTES
            cache.memory.buffer.array[:] = nothing
            cache.freed = partial(_forget_there, cache, nothing)
    memory.states.freed = partial(_forget_lines, memory.states)
    return Core(graphs.graphs(memory, rows), memory)


def _forget_there(cache: PagedCache, nothing: float, page: int) -> None:
    cache.memory.buffer.array[:, page] = nothing


def _forget_lines(states: States, lines: list[int]) -> None:
    for pool in states.arrays.values():
        array = pool.buffer.array
        if array.dtype == np.float32:
            array[lines] = np.nan


def _forget_states(states: States, lines: list[int]) -> None:
    for array in states.arrays.values():
        if array.dtype == np.float32:
            array[lines] = np.nan


def _forget(cache: PagedCache, nothing: float, page: int) -> None:
    cache.memory[:, page] = nothing


def forked_and_grown(core: Core, spec: LoopSpec) -> tuple[list[Any], dict[str, np.ndarray]]:
    """What `Model.forward` does with a cache: two calls, one of them of a fork, whose lines are read and written into a
    third. Returns (logits, depths, loops) of each, and the lines."""
    ids = np.random.default_rng(5).integers(0, 50, (2, 9))
    cache = RowCache(Pool(core), 2, 40, spec)
    outs = [cache.forward(make_chunk(ids, 50, None, None), 0.7, 0, None)]
    twin = cache.fork([1, 0])
    outs.append(twin.forward(make_chunk(ids[:, :1], 50, None, None), 0.7, 0, None))
    entries = twin.read()
    again = RowCache(cache.pool, 2, 40, spec)
    again.write(entries, twin.lengths)
    outs.append(again.forward(make_chunk(ids[:, 3:5], 50, None, None), 0.9, 0, None))
    return outs, entries
