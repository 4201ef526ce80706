"""The machine that a report was made on, and how busy others kept it meanwhile."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

_LIBRARIES = ("mythos-export", "onnxruntime", "torch", "numpy", "openvino", "triton", "tensorrt-rtx-cu13")
_CPU_INFO = Path("/proc/cpuinfo")
_TOPOLOGY = Path("/sys/devices/system/cpu")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def describe_machine(threads: int, cores: tuple[int, ...]) -> dict[str, Any]:
    """Processor, memory, system and library versions, as far as this machine tells; None where it does not."""
    frequency = psutil.cpu_freq()
    return {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "vector_instructions": _vector_instructions(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "mhz_highest": frequency.max or None if frequency else None,
        "governor": _GOVERNOR.read_text().strip() if _GOVERNOR.exists() else None,
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name))},
        "gpu": _gpu(),
        "threads": threads,
        "pinned_to_cores": list(cores),
        "physical_cores_pinned": len({_siblings(core, _TOPOLOGY) for core in cores}),
        "load_before": psutil.getloadavg()[0],
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def usable_cores(threads: int | None = None, topology: Path = _TOPOLOGY) -> tuple[int, ...]:
    """The last `threads` logical cores that this process may use: the first ones serve most interrupts.

    Each on a physical core of its own, as long as there are such; None: one on every physical core.
    """
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    first: dict[str, int] = {}
    for core in allowed:
        first.setdefault(_siblings(core, topology), core)
    alone = set(first.values())
    by_preference = [core for core in allowed if core not in alone] + sorted(alone)
    return tuple(sorted(by_preference[-(threads or len(alone)) :]))


def _siblings(core: int, topology: Path) -> str:
    """The logical cores on this one's physical core, as Linux lists them; itself alone where nothing tells."""
    file = topology / f"cpu{core}" / "topology" / "thread_siblings_list"
    return file.read_text().strip() if file.exists() else str(core)


def _cpu_model() -> str:
    if _CPU_INFO.exists():
        for line in _CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _vector_instructions() -> list[str]:
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")
    flags: set[str] = set()
    if _CPU_INFO.exists():
        for line in _CPU_INFO.read_text().splitlines():
            if line.startswith(("flags", "Features")):
                flags |= set(line.partition(":")[2].split())
    return [name for name in wanted if name in flags]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


@dataclass(frozen=True)
class CpuTimes:
    """Seconds over all cores since boot, at one moment."""

    at: float
    busy: float
    stolen: float

    @classmethod
    def now(cls) -> CpuTimes:
        times = psutil.cpu_times()
        stolen = getattr(times, "steal", 0.0)
        idle = times.idle + getattr(times, "iowait", 0.0)
        guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # also counted as user
        return cls(datetime.now(UTC).timestamp(), sum(times) - idle - stolen - guest, stolen)

    def since(self, earlier: CpuTimes, ours: float) -> dict[str, float]:
        """Cores that others kept busy on average, and the share of one core's time that the hypervisor took."""
        seconds = max(self.at - earlier.at, 1e-9)
        return {
            "seconds": seconds,
            "other_cores_busy": max((self.busy - earlier.busy - ours) / seconds, 0.0),
            "stolen_share": (self.stolen - earlier.stolen) / seconds,
        }
