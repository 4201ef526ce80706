"""A bundle's row graphs, opened in ONNX Runtime on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mythos_runtime.engine.memory import Memory, Room
from mythos_runtime.engine.ort_device.device import OrtDevice
from mythos_runtime.engine.ort_device.graphs import OrtGraphs
from mythos_runtime.engine.ort_device.lines import LineGraphs
from mythos_runtime.engine.ort_device.memory import OrtPlace, OrtStates
from mythos_runtime.errors import BundleError
from mythos_runtime.line_ports import FOLDER, device_files, move_file, rows_file, rows_on_lines
from mythos_runtime.manifest import Manifest
from mythos_runtime.ort import OrtSession, links_need_cpu
from mythos_runtime.ports import Ports
from mythos_runtime.session import Options
from mythos_runtime.spec import LoopSpec

OpenGraph = Callable[[str, Ports], OrtSession]
"""A graph by its file's path in the bundle, with its ports."""


@dataclass(frozen=True)
class OrtRows:
    """The row graphs of a bundle on lines, and where they run."""

    spec: LoopSpec
    sessions: Mapping[str, OrtSession]
    lines: LineGraphs

    @classmethod
    def of(cls, spec: LoopSpec, device: OrtDevice, open_graph: OpenGraph) -> OrtRows:
        """Raises what `open_graph` does."""
        sessions = {name: open_graph(rows_file(name), ports) for name, ports in rows_on_lines(spec).items()}
        return cls(spec, sessions, LineGraphs(device, lambda name, ports: open_graph(move_file(name), ports)))

    @property
    def device(self) -> OrtDevice:
        return self.lines.device

    def memory(self, room: Room) -> Memory:
        """Pages and states on the device. MemoryError where there is no room."""
        return Memory.with_room(self.spec, room, OrtPlace(self.lines), partial(OrtStates, graphs=self.lines))

    def graphs(self, memory: Memory, most_rows: int) -> OrtGraphs:
        """Over this memory, for so many rows a call."""
        return OrtGraphs(self.spec, self.sessions, self.device, memory, most_rows)


def open_cuda_rows(folder: Path, manifest: Manifest, options: Options) -> OrtRows:
    """The row graphs of a bundle of target cuda in the CUDA provider.

    Raises:
        BackendMissing: the bundle's weights are linked; see also `OrtSession`.
        RequestError: see `OrtSession`.
        BundleError: the bundle has no row graphs on lines, or one is damaged.
    """
    if manifest.links is not None:
        raise links_need_cpu(folder)
    lacking = sorted(set(device_files()) - set(manifest.files))
    if lacking:
        raise BundleError(
            f"{folder} has no {lacking[0]}, which the engine needs in ONNX Runtime on CUDA; export the model again "
            "with --target cuda, or take provider cpu"
        )
    chosen = replace(options, provider="cuda")
    plain = replace(chosen, op_library=None)  # what moves bytes calls no operator of ours

    def open_graph(file: str, ports: Ports) -> OrtSession:
        return OrtSession(folder / file, ports, plain if Path(file).parent.name == FOLDER else chosen)

    return OrtRows.of(manifest.spec, OrtDevice("cuda"), open_graph)
