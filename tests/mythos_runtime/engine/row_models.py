"""Small models whose row graphs the engine's tests run, and engines over them that fill freed memory with NaN."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mythos_export.capture import Captured, capture_rows
from mythos_export.lower import lower_rows
from mythos_export.weights_file import store_model
from mythos_model import LoopedModel, MythosConfig, MythosModel
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.device.captures import Captures
from mythos_runtime.engine.device.graphs import DeviceGraphs
from mythos_runtime.engine.device.memory import DeviceStates, TorchPlace
from mythos_runtime.engine.device.programs import cut
from mythos_runtime.engine.graphs import RowGraphs
from mythos_runtime.engine.memory import Memory, Room
from mythos_runtime.engine.pages import PagedCache
from mythos_runtime.engine.states import States
from mythos_runtime.ort import OrtSession
from mythos_runtime.program import WEIGHTS
from mythos_runtime.session import Options
from mythos_runtime.spec import CacheGroup

POSITIONS = 96  # three pages
VOCABULARY = 50


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


@dataclass(eq=False)
class RowModel:
    """A model, the folder of its row graphs, and the program that they are of."""

    model: LoopedModel
    folder: Path
    captured: Captured

    @classmethod
    def openmythos(cls, attention: str, folder: Path) -> RowModel:
        model = MythosModel(config(attention)).reset_parameters(1, halt_bias=-0.5)
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
    ) -> Core:
        """An engine's core with little memory, NaN in all that is nobody's."""
        spec = self.model.spec

        def cache(group: CacheGroup, pages: int) -> PagedCache:
            made = PagedCache(group.slots, pages, group.width, np.dtype(group.dtype))
            made.memory[:] = np.nan
            made.freed = lambda page: made.memory[:, page].fill(np.nan)
            return made

        def open_graph(name: str) -> OrtSession:
            file, options = self.folder / f"{name}.onnx", Options(threads, provider="cpu")
            return OrtSession(file, spec.graphs[name], options, in_turns=True)

        layers, per_loop = spec.cache("layers"), spec.cache("loop")
        around = None if layers is None else cache(layers, around_pages)
        assert per_loop is not None
        loop = cache(per_loop, loop_pages)
        memory = Memory(around, loop, States(spec, lines))
        return Core(RowGraphs(spec, open_graph, memory, rows, POSITIONS), memory)

    @cached_property
    def programs(self) -> dict[str, Any]:
        """The row graphs for PyTorch."""
        return cut(self.captured.program.module(), self.model.spec.graphs)

    def device_core(self, captures: Captures, *, rows: int = 64, lines: int = 400) -> Core:
        """A core in PyTorch on the CPU, NaN in all that is nobody's."""
        spec, place = self.model.spec, TorchPlace(torch, "cpu")
        memory = Memory.with_room(spec, Room(40, 160, lines), place, partial(DeviceStates, place=place))
        for cache in (memory.around, memory.loop):
            assert cache is not None
            cache.memory.fill_(torch.nan)
            cache.freed = partial(_forget, cache)
        return Core(DeviceGraphs(spec, self.programs, place, captures, memory, rows), memory)


def _forget(cache: PagedCache, page: int) -> None:
    cache.memory[:, page] = np.nan
