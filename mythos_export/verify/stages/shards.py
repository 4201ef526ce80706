"""The row graphs of a bundle whose experts are in shards: the step in its pieces, one after the other in this process.

Who runs the shards, and where, is tested where that lives; which pairs of row and expert go to which is the runtime's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from onnx import ModelProto

from mythos_export.verify.stages.onnxruntime import run
from mythos_export.verify.stages.operators import Native, Portable
from mythos_export.verify.stages.rows import Array, Rows
from mythos_export.verify.stages.stage import Bundle
from mythos_runtime.row_ports import ENTER, LEAVE, STEP
from mythos_runtime.shards.entry import REST, ROUTE, SHARED, ExpertShards
from mythos_runtime.shards.share import shares


class Shards(Rows):
    """What both stages share."""

    artifact: ClassVar[str] = f"{ROUTE}.onnx"

    @classmethod
    def graphs(cls, bundle: Bundle) -> tuple[str, ...]:
        return ENTER, *(file.removesuffix(".onnx") for file in _entry(bundle).files()), LEAVE

    @classmethod
    def steps(cls, models: Mapping[str, ModelProto]) -> Sequence[ModelProto]:
        inside = [model for name, model in models.items() if name not in (ENTER, LEAVE, REST)]
        return (*inside, models[REST])

    def compute(self, graph: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if graph != STEP:
            return super().compute(graph, feeds)
        entry = _entry(self.bundle)
        seen = dict(feeds) | self._piece(ROUTE, feeds)
        if SHARED in entry.graphs:
            seen |= self._piece(SHARED, seen)
        choices = seen[entry.graphs[ROUTE].of("expert_index").name]
        x = seen[entry.graphs[ROUTE].of("x").name]
        parts = np.full((choices.size, entry.dim), np.nan, np.float32)
        firsts = np.array([entry.experts(index).start for index in range(len(entry.counts))])
        for index, share in enumerate(shares(choices, entry.owners(), firsts)):
            if share is not None:
                asked = {"x": x[share.rows], "row": share.row, "expert": share.expert}
                parts[share.pairs] = run(self.sessions[entry.name(index)], asked, {})["out"]
        seen["parts"] = parts.reshape(*choices.shape, entry.dim)
        return seen | self._piece(REST, seen)

    def _piece(self, name: str, values: Mapping[str, Array]) -> dict[str, Array]:
        ports = _entry(self.bundle).graphs[name]
        return run(self.sessions[name], {port.name: values[port.name] for port in ports.inputs}, {})


def _entry(bundle: Bundle) -> ExpertShards:
    assert bundle.manifest.shards is not None
    return bundle.manifest.shards


class ShardBodies(Portable, Shards):
    """The pieces as every ONNX runtime can run them."""

    name: ClassVar[str] = "shards"


class ShardKernels(Native, Shards):
    """The pieces with this project's own CPU kernels."""

    name: ClassVar[str] = "shards, CPU kernels"
