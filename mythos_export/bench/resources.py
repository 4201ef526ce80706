"""What a process may use and used: its cores, its peak memory between two moments, the energy of the machine."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_TASKS = Path("/proc/self/task")
_POWERCAP = Path("/sys/class/powercap")
_FORGET_PEAK = "5"  # see proc(5), /proc/pid/clear_refs


@contextlib.contextmanager
def starting_on(cores: Collection[int]) -> Iterator[None]:
    """Processes and threads started inside have these cores from their first instruction on."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)  # of this thread only
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin_all_threads(cores: Collection[int]) -> None:
    """Pin every thread of this process. Linux pins threads, not processes: those that exist keep what they had."""
    os.sched_setaffinity(0, cores)
    for thread in _TASKS.iterdir() if _TASKS.is_dir() else ():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), cores)


def forget_peak_memory() -> bool:
    """Start counting the peak anew; False where the system cannot: then the peak is that of the whole process."""
    try:
        _CLEAR.write_text(_FORGET_PEAK)
    except OSError:
        return False
    return True


def peak_memory() -> int:
    """Most resident bytes of this process, since `forget_peak_memory` where that works."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


class EnergyCounter:
    """Joules of all processor packages, from Linux's powercap (Intel and AMD RAPL), where it may be read."""

    def __init__(self, root: Path = _POWERCAP) -> None:
        zones = sorted(root.glob("*-rapl:?")) + sorted(root.glob("*-rapl:??"))
        packages = [zone for zone in zones if _name(zone).startswith("package-")]  # psys counts them once more
        self._files = [package / "energy_uj" for package in packages]
        self._wraps = [_integer(package / "max_energy_range_uj") for package in packages]
        self.missing: str | None = None
        if not packages:
            self.missing = f"this machine has no energy counter ({root} lists no package)"
        elif any(_integer(file) is None for file in self._files):
            self.missing = f"the energy counters in {root} may only be read by root"
        self._last = self._read()

    def _read(self) -> list[int]:
        return [] if self.missing else [_integer(file) or 0 for file in self._files]

    def joules(self) -> float | None:
        """Since the last call (or since the counter was made); None where there is nothing to read."""
        if self.missing:
            return None
        now = self._read()
        total = 0
        for before, after, wrap in zip(self._last, now, self._wraps, strict=True):
            total += after - before if after >= before else after - before + (wrap or 0)
        self._last = now
        return total / 1e6


def _name(zone: Path) -> str:
    file = zone / "name"
    return file.read_text().strip() if file.exists() else ""


def _integer(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
