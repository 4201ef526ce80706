"""Energy counters as Linux lays them out, and the peak of memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mythos_export.bench.machine import usable_cores
from mythos_export.bench.resources import EnergyCounter
from mythos_export.bench.rounds import _cpu_seconds


def package(root: Path, number: int, energy: int, name: str = "package") -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir()
    (folder / "name").write_text(f"{name}-{number}\n")
    (folder / "max_energy_range_uj").write_text("1000000000\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    return folder / "energy_uj"


def test_joules_are_summed_over_packages_and_survive_the_counter_starting_anew(tmp_path: Path) -> None:
    first, second = package(tmp_path, 0, 999_000_000), package(tmp_path, 1, 5_000_000)
    whole = package(tmp_path, 2, 0, "psys")
    counter = EnergyCounter(tmp_path)
    assert counter.missing is None
    whole.write_text("9000000")  # the whole board, both packages in it
    first.write_text("2000000")  # 1 J to the end, 2 J after
    second.write_text("6500000")
    assert counter.joules() == pytest.approx(4.5)
    assert counter.joules() == 0


def test_a_machine_without_a_counter_says_so(tmp_path: Path) -> None:
    counter = EnergyCounter(tmp_path)
    assert counter.joules() is None
    assert counter.missing is not None and "no energy counter" in counter.missing
    package(tmp_path, 0, 1).write_text("not a number")
    assert "root" in (EnergyCounter(tmp_path).missing or "")


def test_threads_get_physical_cores_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3, 4, 5})
    for core, siblings in enumerate(["0,3", "1,4", "2,5"] * 2):
        folder = tmp_path / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    assert usable_cores(None, tmp_path) == (0, 1, 2)
    assert usable_cores(2, tmp_path) == (1, 2)
    assert usable_cores(4, tmp_path) == (0, 1, 2, 5)


def test_the_processor_time_of_a_worker_that_died_stays_the_runs_own() -> None:
    before = _cpu_seconds([])
    burn = "import time, os\nwhile time.process_time() < 0.3: pass\nos._exit(7)"
    assert subprocess.run([sys.executable, "-c", burn], check=False).returncode == 7
    assert _cpu_seconds([]) - before > 0.25


_ANEW = """
import numpy as np
from mythos_export.bench.resources import forget_peak_memory, peak_memory
large = np.ones(64_000_000, np.uint8)
assert peak_memory() > large.nbytes
del large
if forget_peak_memory():
    before = peak_memory()
    again = np.ones(64_000_000, np.uint8)
    print(peak_memory() - before)
"""


def test_the_peak_of_memory_is_counted_anew() -> None:
    """In a process that does nothing else: what a larger one gives back meanwhile would hide it."""
    done = subprocess.run([sys.executable, "-c", _ANEW], capture_output=True, text=True, check=True)
    if not done.stdout:
        pytest.skip("this system cannot reset the peak of a process")
    assert int(done.stdout) > 0.9 * 64_000_000
