"""The row graphs compiled ahead of time by PyTorch (AOTInductor), where they are to run.

    compile_rows(folder, manifest, device, out)                     # what `mythos package aoti BUNDLE OUT` does
    programs = load_compiled(out, manifest, device, programs)       # what MYTHOS_AOTI=OUT makes the engine do

What OUT holds is native code for one device and one version of PyTorch, and runs in the process. So it is no part of a
bundle, whose programs for PyTorch hold none, and is loaded only by who names it. The heavy operators stay calls of
`torch.ops.mythos`, with whatever kernels they have there; norms, rotations, injection, halting and what lies between
become kernels of PyTorch's own. Weights are not copied into it: it is given those of the bundle.

On the CPU it is compiled, run and held to rows.pt2 by a test. **On a GPU it was not executed yet.**
"""

from __future__ import annotations

import importlib
import json
import platform
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

from mythos_runtime.device_loop.program import with_plain_forms
from mythos_runtime.engine.device.compared import Programs, compare
from mythos_runtime.engine.device.programs import cut
from mythos_runtime.errors import BackendFailed, BackendMissing, BundleError
from mythos_runtime.fields import MAX_JSON_BYTES
from mythos_runtime.files import FileEntry, check_file, describe, write_whole
from mythos_runtime.manifest import Manifest
from mythos_runtime.ports import Ports, shape_of
from mythos_runtime.row_ports import GRAPHS, ROWS
from mythos_runtime.torch_device import TorchDevice

VARIABLE = "MYTHOS_AOTI"
"""A folder that `mythos package aoti` wrote: the engine in PyTorch runs the row graphs from it."""

DESCRIPTION = "aoti.json"
FORMAT_VERSION = 1
# Sizes of the example that is traced; any do, as long as no two are equal and none is 0 or 1.
_EXAMPLE = {"R": 11, "S": 13, "K": 17, "G": 19, "W": 23}
_MOST = 1 << 24
_CONFIG = {
    "aot_inductor.package_constants_in_so": False,  # the bundle's are used
    "aot_inductor.compile_wrapper_opt_level": "O0",  # host code that launches; optimised, it takes minutes to compile
}


def compile_rows(
    folder: Path,
    manifest: Manifest,
    device: TorchDevice,
    out: Path,
    progress: Callable[[str], None] = lambda told: None,
) -> dict[str, Any]:
    """Compile the row graphs of a bundle for a device, run them, and hold them to rows.pt2 there.

    Args:
        folder: of the bundle, which has rows.pt2.
        out: a folder, made if missing, for GRAPH.pt2 and aoti.json.
        progress: called with what is being done.

    Returns: the description, as written.

    Raises:
        BundleError: `out` is in the bundle, or holds other files.
        BackendMissing: this PyTorch cannot compile here.
        BackendFailed: it failed, or what it made computes something else.
    """
    torch, spec = device.torch, manifest.spec
    _check_place(folder, out)
    if not device.plain:
        raise BackendMissing(
            "the operators' plain forms are not registered here: install mythos-export beside the runtime"
        )
    plain = cut(device.load(folder / ROWS).module(), spec.graphs)
    apart = cut(device.load(folder / ROWS).module(), spec.graphs, fused=False)  # the compiler fuses them
    out.mkdir(parents=True, exist_ok=True)
    (out / DESCRIPTION).unlink(missing_ok=True)  # it would describe files that are about to change
    for name in GRAPHS:
        progress(f"compile {name}")
        _compile(
            torch, with_plain_forms(apart[name], device.plain[0]), spec.graphs[name], device.name, out / _file(name)
        )
    described: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "rows": manifest.files[ROWS].sha256,
        "torch": torch.__version__,
        "device": _named(device),
        "files": {_file(name): vars(describe(out / _file(name))) for name in GRAPHS},
    }
    progress("hold them to rows.pt2")
    loaded = {name: _load(torch, out / _file(name), apart[name]) for name in GRAPHS}
    described["compared"] = compare(spec, device, plain, loaded)
    write_whole(out / DESCRIPTION, (json.dumps(described, indent=1) + "\n").encode())
    return described


def load_compiled(
    out: Path, manifest: Manifest, device: TorchDevice, programs: Programs
) -> dict[str, Callable[..., Any]]:
    """The row graphs from a folder that `compile_rows` filled, on the weights of `programs` (of `cut`).

    Raises:
        BundleError: the folder is none, or of another bundle, or its files were changed.
        BackendMissing: it was made for another device or PyTorch.
    """
    torch = device.torch
    described, entries = _described(out)
    again = f"make it again: mythos package aoti BUNDLE {out}"
    for name, entry in entries.items():
        try:
            check_file(out, name, entry, verify_hash=True)
        except BundleError as error:
            raise BundleError(f"{error}; {again}") from error
    rows = manifest.files[ROWS].sha256
    if described["rows"] != rows:
        raise BundleError(
            f"{out} holds the row graphs of another bundle, or of this one before it was exported again; {again}"
        )
    here = {"torch": torch.__version__, "device": _named(device)}
    other = [f"{key} {described[key]!r}, found {value!r}" for key, value in here.items() if described[key] != value]
    if other:
        raise BackendMissing(f"what {out} holds was compiled for {' and '.join(other)} here; {again}")
    return {name: _load(torch, out / _file(name), programs[name]) for name in GRAPHS}


def _check_place(folder: Path, out: Path) -> None:
    """A folder of its own, or one that was made here before."""
    if out.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{out} is in the bundle, whose files the manifest lists; name a folder beside it")
    known = {DESCRIPTION, *map(_file, GRAPHS)}
    others = sorted(path.name for path in out.iterdir() if path.name not in known) if out.is_dir() else []
    if others or (out.exists() and not out.is_dir()):
        found = f"holds {others[0]}" if others else "is no folder"
        raise BundleError(f"{out} {found}; name a folder that is empty, or not there yet")


def _described(out: Path) -> tuple[dict[str, Any], dict[str, FileEntry]]:
    """What aoti.json says, and its files."""
    try:
        with open(out / DESCRIPTION, "rb") as stream:
            described = json.loads(stream.read(MAX_JSON_BYTES))
        known = described["format_version"], set(described["files"])
        if known != (FORMAT_VERSION, {_file(name) for name in GRAPHS}) or not {"rows", "torch", "device"} <= set(
            described
        ):
            raise ValueError(f"it describes the files {', '.join(sorted(known[1]))} in version {known[0]}")
        entries = {name: FileEntry(str(e["sha256"]), int(e["bytes"])) for name, e in described["files"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{out} is no folder of compiled row graphs ({error}); make one with mythos package aoti BUNDLE {out}"
        ) from error
    return dict(described), entries


def _file(graph: str) -> str:
    return f"{graph}.pt2"


def _named(device: TorchDevice) -> str:
    """The processor with the vectors that PyTorch compiles for, or the GPU by its name and compute capability."""
    if device.name == "cpu":
        vectors = importlib.import_module("torch._inductor.cpu_vec_isa").pick_vec_isa()
        return f"cpu ({platform.machine()}, {str(vectors) or 'no vectors'})"
    major, minor = device.torch.cuda.get_device_capability()
    return f"{device.torch.cuda.get_device_name()} (SM {major}{minor})"


def _compile(torch: Any, part: Any, ports: Ports, device: str, path: Path) -> None:
    """One graph, with dynamic rows, spans, blocks, pages and answers."""
    inductor, export = importlib.import_module("torch._inductor"), importlib.import_module("torch.export")
    symbols = {symbol: export.Dim(f"size_{symbol}", min=1, max=_MOST) for symbol in _EXAMPLE}
    example = tuple(
        torch.zeros(shape_of(port, _EXAMPLE), dtype=getattr(torch, port.dtype), device=device) for port in ports.inputs
    )
    shapes = tuple(
        {axis: symbols[dim] for axis, dim in enumerate(port.dims) if isinstance(dim, str)} for port in ports.inputs
    )
    try:
        with torch.no_grad():
            program = export.export(part, example, dynamic_shapes=shapes, strict=False)
            inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=_CONFIG)
    except Exception as error:  # of the compiler, which has no base class for its errors, and of compilers below it
        raise BackendFailed(
            f"torch {torch.__version__} did not compile {path.stem}: {type(error).__name__}: "
            f"{str(error).strip()[-2000:]} (AOTInductor needs a C++ compiler: g++, or what CXX names)"
        ) from error


def _load(torch: Any, path: Path, part: Any) -> Callable[..., Any]:
    """A compiled graph that works on the weights of the graph it was made of."""
    try:
        compiled = importlib.import_module("torch._inductor").aoti_load_package(str(path))
        weights = {name: attrgetter(name)(part) for name in compiled.get_constant_fqns()}
        compiled.load_constants(weights, check_full_update=True, user_managed=True)
    except (RuntimeError, AttributeError, OSError) as error:
        raise BackendFailed(f"torch {torch.__version__} cannot load {path}: {error}") from error

    def run(*arguments: Any) -> Any:
        return compiled(*arguments)

    run.weights = weights  # type: ignore[attr-defined]  # they are used in place, for as long as it is there
    return run
