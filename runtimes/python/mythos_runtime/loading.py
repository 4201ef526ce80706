"""Load a bundle: which backend runs it, and whether the C++ runtime does."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from mythos_runtime.engine.bundled import has_rows
from mythos_runtime.engine.interface import Rows
from mythos_runtime.engine.native import NativeSession
from mythos_runtime.engine.opening import only_python, open_native
from mythos_runtime.errors import NotVerified, RequestError
from mythos_runtime.manifest import Manifest, read_manifest
from mythos_runtime.model import Model
from mythos_runtime.session import EngineChoice, OpLibrary, Options, Session, choose_backend, open_session

Verify = Literal["hashes", "sizes"]
VERIFICATIONS: tuple[Verify, ...] = ("hashes", "sizes")


def load(
    path: str | Path,
    backend: str | None = None,
    threads: int | None = None,
    verify: Verify = "hashes",
    *,
    provider: str = "auto",
    op_library: OpLibrary = "auto",
    weights: str | Path | None = None,
    engine: EngineChoice = "auto",
) -> Model:
    """Load a bundle.

    Args:
        path: the bundle's folder.
        backend: onnxruntime, tensorrt or eager; default: the first of these that the bundle has a file for.
        threads: CPU threads; default: the engine's choice.
        verify: what of the bundle's files is held against the manifest: "hashes", or only "sizes", which reads none.
        provider: for onnxruntime and eager: cpu, cuda (or fail), or auto (cuda where it works).
        op_library: native operators for onnxruntime; see `mythos_runtime.session.Options`.
        weights: of a bundle whose weights are in files outside of it (--weights link): where these are, if not where
            they were at the export; the file, or a folder. Their content is checked at every load; with "sizes" only
            that of files which are named here is not.
        engine: who runs the model on the CPU; see `mythos_runtime.session.Options`.

    Raises:
        RequestError: an argument is not what is described here.
        BundleError: the bundle is damaged, incomplete, of an unknown version, or not a bundle.
        BackendMissing: this machine lacks something; the message says what to install.
    """
    if not isinstance(path, (str, Path)):
        raise RequestError(f"path should be a bundle's folder, as a text or a Path, found {path!r}")
    if verify not in VERIFICATIONS:
        raise RequestError(f"verify should be {' or '.join(VERIFICATIONS)}, found {verify!r}")
    place = None if weights is None else Path(weights)
    options = Options(threads, provider, op_library, place, verify == "hashes", engine)
    folder = Path(path)
    manifest = read_manifest(folder, verify_hashes=verify == "hashes")
    if manifest.doubt is not None:
        warnings.warn(f"{folder}: {manifest.doubt}", NotVerified, stacklevel=2)
    opening = partial(open_session, folder, manifest, backend, options)
    native = open_native(folder, manifest, options) if choose_backend(manifest, backend) == "onnxruntime" else None
    if native is not None:
        return Model(manifest.spec, NativeSession(native, opening), manifest, folder, native)
    if engine == "native":
        raise only_python(f"{folder} as it is asked for here")
    session = opening()
    return Model(manifest.spec, session, manifest, folder, _rows(folder, manifest, options, session))


def _rows(folder: Path, manifest: Manifest, options: Options, session: Session) -> Rows | None:
    """The row graphs in this package, on the session's device; None where they do not run there, or there are none."""
    device = getattr(session, "device", None)
    if not session.runs_rows or (device is None and not has_rows(manifest)):
        return None
    from mythos_runtime.engine.python_rows import PythonRows

    chosen = replace(options, provider=getattr(session, "provider", options.provider))
    return PythonRows(folder, manifest, chosen, device)
