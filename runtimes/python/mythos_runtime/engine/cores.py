"""Row graphs that this package runs itself: in ONNX Runtime on the CPU or on CUDA, or in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from mythos_runtime.cuda_ops import CUDA_OPS
from mythos_runtime.engine.bundled import check_device_rows, check_rows, runs_on_cuda
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.device.opening import DeviceRows, open_rows
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.graphs import RowGraphs
from mythos_runtime.engine.memory import Memory, Room
from mythos_runtime.engine.options import MAX_LAG, MOST_ROWS, EngineOptions
from mythos_runtime.engine.ort_device.opening import OrtRows, open_cuda_rows
from mythos_runtime.engine.part import Part, StepPart
from mythos_runtime.engine.sharded import ShardedStep
from mythos_runtime.engine.speculation import Speculation
from mythos_runtime.errors import BackendMissing, CapacityError
from mythos_runtime.linked import open_links
from mythos_runtime.manifest import Manifest
from mythos_runtime.op_library import find_op_library
from mythos_runtime.ort import OrtSession
from mythos_runtime.ports import Ports
from mythos_runtime.row_ports import LOOPS, LOOPS_FILE, PAGE, STEP, loop_ports
from mythos_runtime.session import Options
from mythos_runtime.shards.group import Shards
from mythos_runtime.shards.opening import open_shards
from mythos_runtime.torch_device import TorchDevice


def python_engine(
    folder: Path, manifest: Manifest, given: EngineOptions, options: Options, shards: Shards | None, on_device: bool
) -> Engine:
    """An engine with a memory of its own; see `open_engine`. `on_device`: PyTorch runs the row graphs."""
    spec, loops = manifest.spec, manifest.spec.trained_loops if given.max_loops is None else given.max_loops
    size, rows = (given.memory, loops, given.lagging), given.most_rows
    if on_device:
        check_device_rows(folder, manifest)
        core = _device_core(open_rows(folder, manifest, options), Memory.room(spec, *size), rows, given.max_lag)
    elif runs_on_cuda(manifest, options):
        core = _cuda_core(folder, manifest, options, Memory.room(spec, *size), rows, given.max_lag)
    else:
        check_rows(folder, manifest)
        memory = Memory.of(spec, *size)
        most = min(spec.max_seq_len, memory.longest)
        core = _core(folder, manifest, options, memory, rows, most, given.max_lag, shards)
    speculation = None
    if given.speculate != "off":
        speculation = Speculation(spec.trained_loops, None if given.speculate == "auto" else given.speculate)
    return Engine(
        core,
        given.most_running,
        given.chunk,
        given.patience,
        loops_per_call=given.loops_per_call,
        budget=given.budget,
        prefixes=given.prefixes,
        speculation=speculation,
    )


def open_core(folder: Path, manifest: Manifest, options: Options, device: TorchDevice | None = None) -> Core:
    """A core whose memory grows with what is reserved (`Core.reserve`). Raises as `open_engine`.

    `device`: where PyTorch runs the graphs; None: ONNX Runtime runs them, where `options` say.
    """
    spec, least = manifest.spec, Room(1, 1, PAGE)
    if device is not None:
        check_device_rows(folder, manifest)
        return _device_core(open_rows(folder, manifest, options, device), least, MOST_ROWS, MAX_LAG)
    if runs_on_cuda(manifest, options):
        return _cuda_core(folder, manifest, options, least, MOST_ROWS, MAX_LAG)
    check_rows(folder, manifest)
    memory = Memory.with_room(spec, least)
    return _core(folder, manifest, options, memory, MOST_ROWS, spec.max_seq_len, MAX_LAG)


def _cuda_core(
    folder: Path, manifest: Manifest, options: Options, room: Room, most_rows: int, max_lag: int | None
) -> Core:
    check_rows(folder, manifest)
    if manifest.shards is not None:
        raise BackendMissing(
            f"{CUDA_OPS} is 1, but the experts of {folder} are in shards, which run on the CPU: take provider cpu, or "
            "export the model without --expert-shards"
        )
    return _device_core(open_cuda_rows(folder, manifest, options), room, most_rows, max_lag)


def _device_core(rows: DeviceRows | OrtRows, room: Room, most_rows: int, max_lag: int | None) -> Core:
    try:
        memory = rows.memory(room)
    except MemoryError as error:
        raise CapacityError(f"there is no room for the caches on {rows.device.name}: {error}") from error
    return Core(rows.graphs(memory, most_rows), memory, max_lag)


def _core(
    folder: Path,
    manifest: Manifest,
    options: Options,
    memory: Memory,
    most_rows: int,
    most_positions: int,
    max_lag: int | None,
    shards: Shards | None = None,
) -> Core:
    spec, chosen = manifest.spec, replace(options, provider="cpu")
    weights = open_links(folder, manifest.links, options.weights, options.hash_weights)

    def open_graph(name: str, ports: Mapping[str, Ports] = spec.graphs) -> OrtSession:
        return OrtSession(folder / f"{name}.onnx", ports[name], chosen, weights=weights)

    step: StepPart | None = None
    if manifest.shards is not None:
        shards = open_shards(folder, manifest, options) if shards is None else shards
        parts = partial(open_graph, ports=manifest.shards.graphs)
        step = ShardedStep(manifest.shards, parts, shards, most_rows, most_positions)
    elif LOOPS_FILE in manifest.files and find_op_library(chosen.op_library) is not None:
        ports = loop_ports(spec.graphs[STEP])
        step = Part(ports, open_graph(LOOPS, {LOOPS: ports}), most_rows, most_positions)
    return Core(RowGraphs(spec, open_graph, memory, most_rows, most_positions, step), memory, max_lag)
