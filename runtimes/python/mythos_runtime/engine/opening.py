"""An engine over a bundle's row graphs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mythos_runtime.engine.core import Core
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.graphs import RowGraphs
from mythos_runtime.engine.memory import Memory
from mythos_runtime.errors import BundleError
from mythos_runtime.manifest import read_manifest
from mythos_runtime.ort import OrtSession
from mythos_runtime.row_ports import GRAPHS
from mythos_runtime.session import Options

DEFAULT_MEMORY = 1 << 30


def open_engine(
    bundle: str | Path,
    *,
    options: Options | None = None,
    memory: int = DEFAULT_MEMORY,
    max_loops: int | None = None,
    most_rows: int = 256,
    most_running: int = 64,
    chunk: int = 64,
    max_lag: int | None = None,
) -> Engine:
    """An engine on the CPU.

    Args:
        options: threads, and the library of native operators; exactness to the bit needs the native ones.
        memory: bytes for caches and states, which the system gives as they are touched.
        max_loops: the most that a request may ask for; default: as trained.
        most_rows: of a call. most_running, chunk: see `Engine`. max_lag: see `Core`.

    Raises:
        BundleError: the bundle has no row graphs, or they are damaged.
        BackendMissing, RequestError, CapacityError: see `OrtSession` and `Memory.of`.
    """
    folder = Path(bundle)
    manifest = read_manifest(folder)
    spec = manifest.spec
    lacking = [name for name in GRAPHS if name not in spec.graphs or f"{name}.onnx" not in manifest.files]
    if lacking:
        raise BundleError(f"{folder} has no {lacking[0]}.onnx, which the engine runs; export the model again")
    room = Memory.of(spec, memory, spec.trained_loops if max_loops is None else max_loops)
    chosen = replace(options or Options(), provider="cpu")
    graphs = RowGraphs(
        spec,
        lambda name: OrtSession(folder / f"{name}.onnx", spec.graphs[name], chosen),
        room.around,
        room.loop,
        most_rows,
        min(spec.max_seq_len, room.positions),
    )
    return Engine(Core(graphs, room, max_lag), most_running, chunk)
