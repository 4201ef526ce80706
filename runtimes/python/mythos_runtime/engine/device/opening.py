"""A bundle's row graphs, opened in PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mythos_runtime.engine.device.captures import Captures, CudaCaptures, Direct
from mythos_runtime.engine.device.compiled import VARIABLE, load_compiled
from mythos_runtime.engine.device.graphs import DeviceGraphs
from mythos_runtime.engine.device.memory import DeviceStates, TorchPlace
from mythos_runtime.engine.device.programs import cut
from mythos_runtime.engine.memory import Memory, Room
from mythos_runtime.errors import RequestError
from mythos_runtime.manifest import Manifest
from mythos_runtime.row_ports import ROWS
from mythos_runtime.session import Options
from mythos_runtime.spec import LoopSpec
from mythos_runtime.torch_device import TorchDevice, open_device

ROW_GRAPHS = "MYTHOS_ROW_GRAPHS"
"""Set to "0", calls of the row graphs on CUDA are no CUDA graphs, but run operator by operator."""


@dataclass(frozen=True)
class DeviceRows:
    """The graphs of a bundle, and where they run."""

    spec: LoopSpec
    device: TorchDevice
    programs: dict[str, Callable[..., Any]]
    captures: Captures

    def memory(self, room: Room) -> Memory:
        """Pages and states on the device. MemoryError where there is no room."""
        place = TorchPlace(self.device.torch, self.device.name)
        return Memory.with_room(self.spec, room, place, partial(DeviceStates, place=place))

    def graphs(self, memory: Memory, most_rows: int) -> DeviceGraphs:
        """Over this memory, for so many rows a call."""
        place = TorchPlace(self.device.torch, self.device.name)
        return DeviceGraphs(self.spec, self.programs, place, self.captures, memory, most_rows)


def open_rows(folder: Path, manifest: Manifest, options: Options, device: TorchDevice | None = None) -> DeviceRows:
    """The row graphs of a bundle that has them as a program.

    Args:
        device: that another program of the bundle is on; None: a new one, of `options`.

    Raises:
        BackendMissing, BundleError: see `torch_device`, and `compiled.load_compiled`, where MYTHOS_AOTI names a folder.
        RequestError: MYTHOS_ROW_GRAPHS is set to what means nothing.
    """
    way = os.environ.get(ROW_GRAPHS, "1")
    if way not in ("0", "1"):
        raise RequestError(f"{ROW_GRAPHS} is {way!r}, expected 0 or 1, or nothing at all")
    device = open_device(folder, options) if device is None else device
    spec = manifest.spec
    programs = cut(device.load(folder / ROWS).module(), spec.graphs)
    compiled = os.environ.get(VARIABLE)
    if compiled:
        programs = load_compiled(Path(compiled), manifest, device, programs)
        device.operators.append(f"row graphs compiled by AOTInductor ({compiled})")
    captures = CudaCaptures(device.torch) if device.name == "cuda" and way == "1" else Direct()
    return DeviceRows(spec, device, programs, captures)
