"""Which TensorRT is on this machine, and which one a build will use. For the build and for `mythos doctor`.

inspect_environment().describe()    # lines for people
choose_backend()                    # raises ToolMissing with the package to install
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mythos_export.errors import TargetError, ToolFailed, ToolMissing
from mythos_export.workers.near import Worker

from .limits import check_targets
from .options import DEFAULT_SMS

FULL = "tensorrt"
RTX = "tensorrt_rtx"
ANSWERS = "mythos_export.targets.tensorrt_build.worker:TensorRT"
INSTALL_HINT = (
    "install TensorRT-RTX, which builds engines without a GPU: pip install tensorrt-rtx-cu13 "
    "(Linux or Windows on x86-64); or use --target onnx"
)
_PROBE_TIMEOUT_S = 120.0
_CUDA_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute values of the driver's API


@dataclass(frozen=True)
class ModuleStatus:
    """One TensorRT module: `version` if it works, otherwise `problem` says why it does not."""

    module: str
    version: str | None
    problem: str | None

    @property
    def usable(self) -> bool:
        return self.version is not None


@dataclass(frozen=True)
class Environment:
    """Full TensorRT, TensorRT-RTX, and the compute capabilities of the GPUs that the driver shows (80 for 8.0)."""

    full: ModuleStatus
    rtx: ModuleStatus
    gpus: tuple[int, ...]

    def describe(self) -> list[str]:
        """One line a fact, for `mythos doctor`."""
        gpus = ", ".join(f"SM {sm}" for sm in self.gpus) or "none"
        lines = [f"NVIDIA GPUs: {gpus}"]
        for label, status in (("TensorRT", self.full), ("TensorRT-RTX", self.rtx)):
            lines.append(f"{label}: {status.version}" if status.usable else f"{label}: not usable ({status.problem})")
        try:
            lines.append(f"--target tensorrt would build with {choose_backend(self).module}")
        except ToolMissing as error:
            lines.append(str(error))
        return lines


@dataclass(frozen=True)
class Backend:
    """What a build uses: the module, its version, and the GPU it builds for (None for TensorRT-RTX: any target)."""

    module: str
    version: str
    gpu: int | None

    @property
    def rtx(self) -> bool:
        return self.module == RTX

    @property
    def title(self) -> str:
        return f"{'TensorRT-RTX' if self.rtx else 'TensorRT'} {self.version}"

    def targets(self, sms: tuple[int, ...] | None, precision: str) -> tuple[int, ...]:
        """The SMs to build for; raises `TargetError` for those that this backend cannot do."""
        if self.gpu is None:
            wanted = DEFAULT_SMS if sms is None else sms
            check_targets(wanted, precision)
            return tuple(sorted(set(wanted)))
        if sms is not None and set(sms) != {self.gpu}:
            asked = ",".join(str(sm) for sm in sorted(set(sms)))
            raise TargetError(
                f"full TensorRT builds for the GPU of the machine, SM {self.gpu}, but SM {asked} was asked for; "
                f"leave --sm out, or build for other GPUs on a machine with TensorRT-RTX alone"
            )
        return (self.gpu,)


@contextlib.contextmanager
def library_folder(module: str) -> Iterator[Path | None]:
    """A temporary folder in which TensorRT-RTX's library has the name that its own parser looks for.

    The parser opens `libtensorrt_rtx.so` when a node resolves to a plugin and aborts the process if there is none; the
    wheel ships `libtensorrt_rtx.so.1` only. The folder has to be on the search path before the process starts. Yields
    None where there is nothing to mend (full TensorRT, no such wheel, or an operating system without such links).
    """
    spec = importlib.util.find_spec("tensorrt_rtx_libs") if module == RTX and os.name == "posix" else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    libraries = [file for folder in folders for file in sorted(Path(folder).glob("libtensorrt_rtx.so.*"))]
    if not libraries:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="mythos-tensorrt-") as folder:
        (Path(folder) / "libtensorrt_rtx.so").symlink_to(libraries[0].resolve())
        yield Path(folder)


@contextlib.contextmanager
def tensorrt_worker(module: str, log: Path | None = None, answers: str = ANSWERS) -> Iterator[Worker]:
    """A worker in which this TensorRT can be imported."""
    with library_folder(module) as library:
        places = [str(library), os.environ.get("LD_LIBRARY_PATH")]
        changes = {"LD_LIBRARY_PATH": os.pathsep.join(place for place in places if place)} if library else {}
        with Worker(answers, "its process", environment=changes, log=log) as worker:
            yield worker


@functools.cache
def probe_module(module: str) -> ModuleStatus:
    """Whether a TensorRT module really works: it is imported in a process of its own, where a crash does no harm."""
    if importlib.util.find_spec(module) is None:
        return ModuleStatus(module, None, "not installed")
    try:
        with tensorrt_worker(module) as worker:
            answer = worker.ask("probe", module=module, timeout_s=_PROBE_TIMEOUT_S)
    except ToolFailed as error:
        return ModuleStatus(module, None, error.brief)
    return ModuleStatus(module, answer["version"], None)


def gpu_capabilities() -> tuple[int, ...]:
    """Compute capabilities of the GPUs, asked of the CUDA driver; empty without a driver or a GPU."""
    for name in _CUDA_LIBRARIES:
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return ()
        return tuple(_capability(driver, index) for index in range(count.value))
    return ()


def _capability(driver: ctypes.CDLL, index: int) -> int:
    numbers = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        value = ctypes.c_int(0)
        status = driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, index)
        if status != 0:
            raise ToolMissing(
                f"the CUDA driver did not tell the compute capability of GPU {index} (error {status}); "
                "check the driver with nvidia-smi"
            )
        numbers.append(value.value)
    return numbers[0] * 10 + numbers[1]


def inspect_environment() -> Environment:
    return Environment(probe_module(FULL), probe_module(RTX), gpu_capabilities())


def choose_backend(environment: Environment | None = None) -> Backend:
    """Full TensorRT where it works and a GPU is there, TensorRT-RTX otherwise.

    Raises `ToolMissing` (exit code 3) with the package to install.
    """
    if environment is None:
        environment = inspect_environment()
    full, rtx = environment.full, environment.rtx
    if full.version is not None and environment.gpus:
        return Backend(FULL, full.version, environment.gpus[0])
    if rtx.version is not None:
        return Backend(RTX, rtx.version, None)
    found = f"TensorRT: {full.problem or 'no GPU'}; TensorRT-RTX: {rtx.problem}"
    raise ToolMissing(f"no TensorRT can build here ({found}); {INSTALL_HINT}")
