"""An engine over a bundle's row graphs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from mythos_runtime.cuda_ops import CUDA_OPS, rows_on_cuda, wants_cuda_ops
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.device.opening import DeviceRows, open_rows
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.graphs import Part, RowGraphs, StepPart
from mythos_runtime.engine.interface import AnyEngine
from mythos_runtime.engine.memory import Memory, Room
from mythos_runtime.engine.native import EngineOptions, NativeEngine, NativeModel, find_runtime_library
from mythos_runtime.engine.ort_device.opening import OrtRows, open_cuda_rows
from mythos_runtime.engine.request import Budget
from mythos_runtime.engine.sharded import ShardedStep
from mythos_runtime.engine.speculation import Speculate, Speculation
from mythos_runtime.errors import BackendMissing, BundleError, CapacityError, RequestError
from mythos_runtime.linked import open_links
from mythos_runtime.manifest import Manifest, read_manifest
from mythos_runtime.ort import OrtSession, find_op_library
from mythos_runtime.ports import Ports
from mythos_runtime.row_ports import GRAPHS, LOOPS, LOOPS_FILE, PAGE, ROWS, STEP, loop_ports
from mythos_runtime.session import Options
from mythos_runtime.shards.group import SECONDS, Shards
from mythos_runtime.shards.near import Processes, Starter
from mythos_runtime.torch_device import TorchDevice

DEFAULT_MEMORY = 1 << 30
CHUNK, MAX_LAG = 64, 64
MOST_ROWS = 256
N = TypeVar("N")


def open_engine(
    bundle: str | Path,
    *,
    options: Options | None = None,
    memory: int = DEFAULT_MEMORY,
    max_loops: int | None = None,
    most_rows: int = MOST_ROWS,
    most_running: int = 64,
    chunk: int = CHUNK,
    max_lag: int | None = MAX_LAG,
    loops_per_call: int | None = None,
    budget: Budget | None = None,
    prefixes: int = 0,
    speculate: Speculate = "off",
    shards: Shards | None = None,
    backend: str | None = None,
) -> AnyEngine:
    """An engine over a bundle's row graphs.

    Args:
        options: threads, the library of native operators (exactness to the bit needs the native ones), and who runs
            the row graphs. The provider is the eager backend's device; ONNX Runtime runs row graphs on the CPU, or on
            CUDA where it is asked to with a bundle's kernels (`runs_on_cuda`).
        memory: bytes for pages of the caches and the states of positions that lag, which the system gives as they are
            touched. There are states for `max_lag` and a chunk of every sequence that runs or is kept; where that is
            not enough (`max_lag` None bounds nothing), a request that finds none first catches up on its lagging
            positions.
        max_loops: the most that a request may ask for; default: as trained.
        most_rows: of a call. max_lag: see `Core`.
        most_running, chunk, loops_per_call, budget, prefixes: see `Engine`.
        speculate: "auto", "off", or the loops after which a draft is taken.
        shards: of a bundle whose experts are in shards; None: processes of this machine are started for them.
        backend: onnxruntime (default) or eager, which needs the graphs as a program (`--target cuda`).

    Raises:
        BundleError: the bundle has no row graphs, or they are damaged.
        BackendMissing, RequestError, CapacityError: see `OrtSession`, `torch_device` and `Memory.of`.
    """
    folder, chosen = Path(bundle), options or Options()
    manifest = read_manifest(folder)
    if _may_be_native(manifest, chosen, backend):
        given = EngineOptions(
            memory, max_loops, most_rows, most_running, chunk, loops_per_call, max_lag, budget, prefixes, speculate
        )
        native = _native(lambda: NativeEngine.open(folder, manifest.spec, chosen, given), chosen)
        if native is not None:
            return native
    elif chosen.engine == "native":
        raise only_python(f"{folder} as it is asked for here")
    spec, loops = manifest.spec, manifest.spec.trained_loops if max_loops is None else max_loops
    lagging = (most_running + prefixes) * ((MAX_LAG if max_lag is None else max_lag) + min(chunk, most_rows))
    if _on_device(backend):
        check_device_rows(folder, manifest)
        rows = open_rows(folder, manifest, chosen)
        core = _device_core(rows, Memory.room(spec, memory, loops, lagging), most_rows, max_lag)
    elif runs_on_cuda(manifest, chosen):
        room = Memory.room(spec, memory, loops, lagging)
        core = _cuda_core(folder, manifest, chosen, room, most_rows, max_lag)
    else:
        check_rows(folder, manifest)
        dealt = Memory.of(spec, memory, loops, lagging)
        most = min(spec.max_seq_len, dealt.longest)
        core = _core(folder, manifest, chosen, dealt, most_rows, most, max_lag, shards)
    speculation = None
    if speculate != "off":
        speculation = Speculation(spec.trained_loops, None if speculate == "auto" else speculate)
    return Engine(
        core,
        most_running,
        chunk,
        loops_per_call=loops_per_call,
        budget=budget,
        prefixes=prefixes,
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


def open_native(folder: Path, manifest: Manifest, options: Options) -> NativeModel | None:
    """A bundle whose files were checked already, in the C++ runtime; None where Python runs it, since it is not to run
    on the CPU, for one. Raises as `open_engine`."""
    if options.provider != "cpu" and (options.provider == "cuda" or wants_cuda_ops() or _knows_cuda()):
        return None
    if options.engine == "python" or manifest.shards is not None or not has_rows(manifest):
        return None
    return _native(lambda: NativeModel(folder, manifest.spec, options), options)


def _may_be_native(manifest: Manifest, options: Options, backend: str | None) -> bool:
    """Whether the C++ runtime's engine may run a bundle's row graphs: on the CPU, with the experts in one place."""
    if options.engine == "python" or not has_rows(manifest):
        return False
    return not _on_device(backend) and manifest.shards is None and not runs_on_cuda(manifest, options)


def only_python(what: str) -> BackendMissing:
    """Where the native engine was asked for."""
    return BackendMissing(
        "the native engine runs bundles with row graphs in ONNX Runtime on the CPU, with all experts in one place, and "
        f"not {what}: take engine auto, or provider cpu"
    )


def _native(open_it: Callable[[], N], options: Options) -> N | None:
    """What the C++ runtime opens; None where it is not here, and nobody insists: Python serves."""
    if options.engine == "auto" and find_runtime_library() is None:
        return None
    try:
        return open_it()
    except BackendMissing:
        if options.engine == "native":
            raise
        return None  # `mythos doctor` says why


def _knows_cuda() -> bool:
    """Whether the ONNX Runtime that is installed is one for GPUs, told without loading it."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        return True  # whoever opens it says that it is not there
    return (Path(found.origin).parent / "capi" / "libonnxruntime_providers_cuda.so").is_file()


def runs_on_cuda(manifest: Manifest, options: Options) -> bool:
    """Whether ONNX Runtime runs a bundle's row graphs on CUDA. Experts in shards run on the CPU, unless CUDA is named.
    Raises as `rows_on_cuda`."""
    return rows_on_cuda(options) and (manifest.shards is None or options.provider == "cuda")


def has_rows(manifest: Manifest) -> bool:
    """Whether a bundle has row graphs."""
    return not _lacking(manifest)


def check_rows(folder: Path, manifest: Manifest) -> None:
    """BundleError where a bundle has no row graphs."""
    lacking, spec = _lacking(manifest), manifest.spec
    if not set(GRAPHS) & set(spec.graphs):
        raise BundleError(
            f"{folder} has no row graphs, which the engine runs: with its exit rule {spec.exit.name} there are none; "
            "run the model itself (mythos_runtime.load), or export it again with another --exit"
        )
    if lacking:
        raise BundleError(f"{folder} has no {lacking[0]}.onnx, which the engine runs; export the model again")


def check_device_rows(folder: Path, manifest: Manifest) -> None:
    """BundleError where a bundle has no row graphs that PyTorch runs."""
    if not set(GRAPHS) <= set(manifest.spec.graphs):
        check_rows(folder, manifest)
    if ROWS not in manifest.files:
        raise BundleError(
            f"{folder} has no {ROWS}, the row graphs for PyTorch; export the model again with --target cuda, or take "
            "the backend onnxruntime"
        )


def _on_device(backend: str | None) -> bool:
    if backend not in (None, "onnxruntime", "eager"):
        raise RequestError(f"the engine runs on the backends onnxruntime and eager, found {backend!r}")
    return backend == "eager"


def _cuda_core(
    folder: Path, manifest: Manifest, options: Options, room: Room, most_rows: int, max_lag: int | None
) -> Core:
    check_rows(folder, manifest)
    if manifest.shards is not None:
        raise BackendMissing(
            f"{CUDA_OPS} is 1, but the experts of {folder} are in shards, which run on the CPU: take provider cpu, or "
            "export the model without --expert-shards"
        )
    try:
        rows = open_cuda_rows(folder, manifest, options, most_rows)
    except MemoryError as error:
        raise CapacityError(f"there is no room for a call's rows on the GPU: {error}") from error
    return _device_core(rows, room, most_rows, max_lag)


def _device_core(rows: DeviceRows | OrtRows, room: Room, most_rows: int, max_lag: int | None) -> Core:
    try:
        memory = rows.memory(room)
    except MemoryError as error:
        raise CapacityError(f"there is no room for the caches on {rows.device.name}: {error}") from error
    return Core(rows.graphs(memory, most_rows), memory, max_lag)


def _lacking(manifest: Manifest) -> list[str]:
    needed = [name for name in GRAPHS if name != STEP or manifest.shards is None]  # in whose place its parts are
    return [name for name in needed if name not in manifest.spec.graphs or f"{name}.onnx" not in manifest.files]


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
        return OrtSession(folder / f"{name}.onnx", ports[name], chosen, in_turns=True, weights=weights)

    step: StepPart | None = None
    if manifest.shards is not None:
        shards = open_shards(folder, manifest, options) if shards is None else shards
        parts = partial(open_graph, ports=manifest.shards.graphs)
        step = ShardedStep(manifest.shards, parts, shards, most_rows, most_positions)
    elif LOOPS_FILE in manifest.files and find_op_library(chosen.op_library) is not None:
        ports = loop_ports(spec.graphs[STEP])
        step = Part(ports, open_graph(LOOPS, {LOOPS: ports}), most_rows, most_positions)
    return Core(RowGraphs(spec, open_graph, memory, most_rows, most_positions, step), memory, max_lag)


def open_shards(
    folder: Path, manifest: Manifest, options: Options, starter: Starter | None = None, seconds: float = SECONDS
) -> Shards:
    """The shards of a bundle that has them; they end with what is returned.

    Args:
        options: threads are those of all of them together.
        starter: who runs them; None: processes of this machine.
        seconds: see `Shards`.

    Raises:
        RuntimeBundleError: one does not start.
    """
    assert manifest.shards is not None
    count = len(manifest.shards.counts)
    each = None if options.threads is None else max(1, options.threads // count)
    shards = Shards(manifest, starter or Processes(folder, count, each), seconds)
    shards.start()
    return shards
