"""Which TensorRT is on this machine, and which one a build will use. For the build and for `mythos doctor`.

inspect_environment().describe()    # lines for people
choose_backend()                    # raises TensorRTMissingError with the package to install
"""

from __future__ import annotations

import ctypes
import importlib.util
import tempfile
from dataclasses import dataclass

from .errors import TensorRTMissingError, TensorRTRequestError
from .limits import RTX_SMS, check_targets
from .options import DEFAULT_SMS
from .process import run_worker

FULL = "tensorrt"
RTX = "tensorrt_rtx"
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
        except TensorRTMissingError as error:
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
        """The SMs to build for; raises `TensorRTRequestError` for those that this backend cannot do."""
        if self.gpu is None:
            wanted = DEFAULT_SMS if sms is None else sms
            check_targets(wanted, precision)
            return tuple(sorted(set(wanted)))
        if sms is not None and set(sms) != {self.gpu}:
            asked = ",".join(str(sm) for sm in sorted(set(sms)))
            buildable = " (or backend tensorrt_rtx)" if set(sms) <= set(RTX_SMS) else ""
            raise TensorRTRequestError(
                f"full TensorRT builds for the GPU of the machine, SM {self.gpu}, but SM {asked} was asked for; "
                f"leave --sm out, or build for other GPUs on a machine with TensorRT-RTX{buildable}"
            )
        return (self.gpu,)


def probe_module(module: str) -> ModuleStatus:
    """Whether a TensorRT module really works: it is imported in a process of its own, where a crash does no harm."""
    if importlib.util.find_spec(module) is None:
        return ModuleStatus(module, None, "not installed")
    with tempfile.TemporaryFile() as log:
        end = run_worker(["--probe", module], module=module, log=log, timeout_s=_PROBE_TIMEOUT_S)
        log.seek(0)
        last = log.read().decode(errors="replace").strip().splitlines()[-1:]
    if end.final is not None and end.final["event"] == "result":
        return ModuleStatus(module, end.final["version"], None)
    why = end.final["message"] if end.final is not None else " ".join([f"the import {end.describe()}", *last])
    return ModuleStatus(module, None, why)


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
            raise TensorRTMissingError(
                f"the CUDA driver did not tell the compute capability of GPU {index} (error {status}); "
                "check the driver with nvidia-smi, or choose backend tensorrt_rtx"
            )
        numbers.append(value.value)
    return numbers[0] * 10 + numbers[1]


def inspect_environment() -> Environment:
    return Environment(probe_module(FULL), probe_module(RTX), gpu_capabilities())


def choose_backend(environment: Environment | None = None, wanted: str | None = None) -> Backend:
    """Full TensorRT where it works and a GPU is there, TensorRT-RTX otherwise; or the one that is `wanted`.

    Raises `TensorRTMissingError` (exit code 3) with the package to install.
    """
    if environment is None:
        environment = inspect_environment()
    full, rtx = environment.full, environment.rtx
    if wanted != RTX and full.version is not None and environment.gpus:
        return Backend(FULL, full.version, environment.gpus[0])
    if wanted == FULL:
        why = "it finds no NVIDIA GPU, for which it would build" if full.usable else full.problem
        raise TensorRTMissingError(f"full TensorRT was asked for, but: {why}; {INSTALL_HINT}")
    if rtx.version is not None:
        return Backend(RTX, rtx.version, None)
    found = f"TensorRT: {full.problem or 'no GPU'}; TensorRT-RTX: {rtx.problem}"
    raise TensorRTMissingError(f"no TensorRT can build here ({found}); {INSTALL_HINT}")
