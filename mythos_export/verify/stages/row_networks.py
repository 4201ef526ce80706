"""The row graphs as TensorRT parsed them, run layer by layer on the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from mythos_export.errors import ParityError
from mythos_export.passes.return_entries import ENTRY, SUFFIX
from mythos_export.targets.tensorrt_build.environment import RTX
from mythos_export.targets.tensorrt_rows import graph_of
from mythos_export.verify.stages.network import Network, tensorrt_module
from mythos_export.verify.stages.rows import Array, Rows
from mythos_export.verify.stages.stage import Bundle, Stage, with_weights
from mythos_export.verify.tensorrt_network.process import NetworkProcess
from mythos_export.verify.trace import Values, names
from mythos_export.verify.twin import INSIDE, Parts
from mythos_runtime.row_ports import GRAPHS, STEP


class RowNetworks(Rows):
    """What TensorRT understood of enter, step and leave; the entries that it returns are written into the pages here,
    as whoever runs an engine has to."""

    name: ClassVar[str] = "tensorrt row networks"
    runner: ClassVar[str] = "interpreter of the parsed networks"
    artifact: ClassVar[str] = graph_of(STEP)

    def __init__(self, bundle: Bundle) -> None:
        self.spec, self.bundle, self.seen = bundle.spec, bundle, None
        ports = {str(port.group): port.name for port in self.spec.graphs[STEP].outputs if port.role == "state_next"}
        self.taps = {name: ports.get(name, INSIDE + name) for name in names(self.spec)}
        self.stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            module = tensorrt_module() or RTX
            self.networks = {
                name: stack.enter_context(NetworkProcess(module, bundle.folder / graph_of(name))) for name in GRAPHS
            }
            self.stack = stack.pop_all()

    @classmethod
    def lacking(cls, bundle: Bundle) -> str | None:
        return Network.lacking(bundle)

    @classmethod
    def takes(cls, bundle: Bundle, inputs: Mapping[str, np.ndarray]) -> bool:
        return super().takes(bundle, inputs) and Network.takes(bundle, inputs)

    @classmethod
    def open(cls, bundle: Bundle) -> RowNetworks:
        return cls(bundle)

    @classmethod
    def files(cls, bundle: Bundle) -> list[str]:
        return with_weights(bundle, [graph_of(name) for name in GRAPHS])

    @classmethod
    def parts(cls, bundle: Bundle) -> Parts | None:
        return None

    def values(self, inputs: Mapping[str, np.ndarray], iterations: Sequence[int]) -> list[Values]:
        return Stage.values(self, inputs, iterations)

    def weights(self) -> dict[str, Mapping[str, np.ndarray]]:
        return {f"the parsed network of {name}": network.constants() for name, network in self.networks.items()}

    def compute(self, graph: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        found = dict(self.networks[graph].run(feeds, whole=0).around)  # all values: there is no loop
        lost = [name for name in self.taps.values() if graph == STEP and name not in found]
        if lost:
            raise ParityError(f"cannot look inside TensorRT's step: it computes nothing named {lost[0]}")
        ports = self.spec.graphs[graph]
        if any(port.role == "cache" for port in ports.inputs):
            place = [feeds[ports.of(role).name] for role in ("tables", "span", "position")]
            for port in ports.outputs:
                if port.role == "cache_next":
                    name = port.name.removesuffix(SUFFIX)
                    found[port.name] = _written(feeds[name], found[f"{name}{ENTRY}"], *place)
        return found

    def close(self) -> None:
        self.stack.close()


def _written(pages: Array, entries: Array, tables: Array, span: Array, position: Array) -> Array:
    """A cache [pages, page, C] with the entries [r, C] of rows that are no padding."""
    pages, real = pages.copy(), span >= 0
    block, offset = np.divmod(position[real], pages.shape[1])
    pages[tables[span[real], block], offset] = entries[real]
    return pages
