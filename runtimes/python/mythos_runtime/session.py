"""What runs a graph: one protocol, and a backend for each engine.

    >>> session = open_session(folder, manifest)            # onnxruntime where the bundle has model.onnx
    >>> outputs = session.run(inputs)                       # numpy in, numpy out; names as in manifest.spec.ports

A backend is a module with two functions: `open_session(folder, manifest, options) -> Session` and
`missing() -> str | None`, which says what this machine lacks for it. No backend is imported before it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from mythos_runtime.errors import BundleError, RequestError
from mythos_runtime.manifest import Manifest
from mythos_runtime.stores import HOST, Store

OpLibrary = Path | Literal["auto"] | None
EngineChoice = Literal["auto", "native", "python"]
ENGINES: tuple[EngineChoice, ...] = ("auto", "native", "python")
PROVIDERS = ("auto", "cpu", "cuda")
NATIVE = Path(__file__).parent / "native"
"""Libraries and programs that the build of this package fills in."""


class Session(Protocol):
    """A graph ready to run."""

    name: str
    """The backend: onnxruntime, eager or tensorrt."""

    description: str
    """One line for people: library and version, device, threads."""

    operators: str
    """What runs the operators of the domain mythos: "native" kernels, "portable" bodies (slow), the "engine" itself."""

    runs_rows: bool
    """Whether the row graphs of the bundle run in the same way."""

    store: Store
    """Where its caches are; a cache of another one's does not fit."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph once. Inputs are C-contiguous and only read; outputs belong to the caller.

        Where the past is `Held`, of this session's own store, it does not cross to the host, and nor do the new
        entries: they are `Held`, too, and good until the next call.

        Raises:
            BackendFailed: the engine could not finish the call.
            BackendMissing: the machine lacks something that only shows when it runs.
        """
        ...


class ClosedSession:
    """What is left of a session that was closed."""

    name = description = operators = "closed"
    runs_rows = False
    store: Store = HOST

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise RequestError("this model was closed; load it again")


@dataclass(frozen=True)
class Options:
    """How to run: CPU threads (None: the engine's choice), ONNX Runtime's provider or PyTorch's device, the library of
    ONNX Runtime's native operators.

    `op_library`: "auto" takes the one installed with this package, where there is one (`mythos_runtime.op_library`);
    None runs the
    portable function bodies; a path names a library. A bundle never brings its own: it is native code.

    `engine`: who runs the model on the CPU: "native", the C++ runtime; "python", this package, with the same results by
    the same calls, more slowly; "auto": the native one where it is installed.

    `weights`, `hash_weights`: of a bundle whose weights are in files outside of it, see `linked.open_links`.
    """

    threads: int | None = None
    provider: str = "auto"
    op_library: OpLibrary = "auto"
    weights: Path | None = None
    hash_weights: bool = True
    engine: EngineChoice = "auto"

    def __post_init__(self) -> None:
        threads = self.threads
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise RequestError(f"threads should be a positive integer or None, found {threads!r}")
        if self.provider not in PROVIDERS:
            raise RequestError(f"there is no provider {self.provider!r}; the providers are {', '.join(PROVIDERS)}")
        if self.engine not in ENGINES:
            raise RequestError(f"there is no engine {self.engine!r}; the engines are {', '.join(ENGINES)}")


@dataclass(frozen=True)
class Backend:
    """Where a backend lives and which file of a bundle it runs."""

    module: str
    suffix: str
    prefer: str


BACKENDS = {
    "onnxruntime": Backend("mythos_runtime.ort", ".onnx", "model.onnx"),
    "tensorrt": Backend("mythos_runtime.tensorrt", ".engine", ""),
    "eager": Backend("mythos_runtime.eager", ".pt2", "model.pt2"),
}
_ALIASES = {"onnx": "onnxruntime", "ort": "onnxruntime", "torch": "eager", "trt": "tensorrt"}


def choose_backend(manifest: Manifest, backend: str | None = None) -> str:
    """The backend's full name: the one asked for, or the first of `BACKENDS` that the bundle has a file for.

    Raises:
        RequestError: there is no such backend.
        BundleError: the bundle holds nothing that it could run.
    """
    if backend is not None:
        name = _ALIASES.get(backend, backend)
        if name not in BACKENDS:
            raise RequestError(f"there is no backend {backend!r}; the backends are {', '.join(BACKENDS)}")
        return name
    for name, known in BACKENDS.items():
        if any(path.endswith(known.suffix) for path in manifest.files):
            return name
    suffixes = ", ".join(known.suffix for known in BACKENDS.values())
    raise BundleError(f"the manifest lists no file that can be run ({suffixes}); export the model again")


def graph_file(folder: Path, manifest: Manifest, backend: str) -> Path:
    """The file of a bundle that `backend` runs (BundleError where there is none, or no telling which)."""
    known = BACKENDS[backend]
    path = manifest.file_ending(known.suffix, known.prefer)
    if manifest.shards is not None and known.prefer not in manifest.files:
        raise BundleError(
            f"{folder} does not hold the model as one graph, which is what {backend} runs: its experts are in shards, "
            "for generation and mythos serve; export it without --expert-shards"
        )
    if known.prefer in manifest.missing:
        raise BundleError(f"{backend} runs {known.prefer}, which is missing from {folder}; export or copy it again")
    if path is None:
        count = sum(name.endswith(known.suffix) for name in manifest.files)
        found = f"{count} files" if count else "no file"
        raise BundleError(f"the backend {backend} needs {known.prefer}, but the bundle has {found} in {known.suffix}")
    return folder / path


def open_session(
    folder: Path,
    manifest: Manifest,
    backend: str | None = None,
    options: Options | None = None,
) -> Session:
    """Open a bundle's graph with a backend (see `choose_backend` for the default).

    Raises:
        BackendMissing: this machine lacks what the backend needs; says what to install.
        BundleError: the graph is damaged or has other ports than the manifest says.
    """
    module = importlib.import_module(BACKENDS[choose_backend(manifest, backend)].module)
    session: Session = module.open_session(folder, manifest, options or Options())
    return session


def missing_for(backend: str) -> str | None:
    """What this machine lacks to run a backend, with what to install; None where it lacks nothing."""
    answer: str | None = importlib.import_module(BACKENDS[backend].module).missing()
    return answer
