"""Runs mutants in a process that may die: one line before each, one after it. See __main__.py."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path

from fuzz_readers.mutate import mutate
from fuzz_readers.seeds import SilentDifference, Subject, subjects

from mythos_model.errors import ModelError
from mythos_runtime.errors import RuntimeBundleError

CPU_SECONDS = 5  # of one mutant, until it hangs
SECONDS = 300  # until it waits for something that never comes: the machine may be busy
ROOM = 1 << 30  # bytes of address space beyond what the process has before the first mutant
GROWTH, TIMES = 48 << 20, 100  # bytes of memory that a reader may take: some, and so many times the files


def main(seed: int, first: int, last: int, bundle: Path | None, keep: Path | None) -> None:
    warnings.simplefilter("ignore")
    everything = subjects(bundle)
    names = sorted(everything)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pristine = {name: folder / name.replace(" ", "_") for name in names}
        for name, path in pristine.items():
            path.mkdir()
            everything[name].write(path)
            everything[name].check(path)  # untouched, every subject is read; and everything is imported
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
        for number in range(first, last):
            rng = random.Random(f"{seed}:{number}")
            name = names[number % len(names)]
            mutant = folder / "mutant"
            shutil.copytree(pristine[name], mutant, symlinks=True, copy_function=_copy)
            what = f"{name}: {mutate(mutant, rng)}"
            print(json.dumps({"number": number, "what": what}), flush=True)
            finding, outcome = attempt(everything[name], mutant)
            print(json.dumps({"number": number, "what": what, "outcome": outcome, "finding": finding}), flush=True)
            if finding and keep:
                shutil.copytree(mutant, keep / f"{seed}-{number}", symlinks=True, dirs_exist_ok=True, ignore=_pipes)
            shutil.rmtree(mutant)


def attempt(subject: Subject, folder: Path) -> tuple[str | None, str]:
    """What is wrong with how one mutant was read, None where nothing is; and whether it was read or refused."""
    size = sum(f.stat().st_size for f in folder.rglob("*") if not f.is_symlink() and f.is_file())
    outcome, finding = "read", None
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from here
    before = _status("VmRSS")
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # kills this process: nothing else stops a loop in C
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        subject.check(folder)
    except (ModelError, RuntimeBundleError) as error:
        outcome, finding = "refused", _bad_text(str(error))
    except SilentDifference as error:
        finding = f"silent difference: {error}"
    except BaseException as error:  # panics of Rust libraries are no Exceptions
        finding = f"traceback: {type(error).__name__}: {str(error)[:300]}"
    for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
        signal.setitimer(timer, 0)
    grown = _status("VmHWM") - before
    if finding is None and grown > GROWTH + TIMES * size:
        finding = f"memory: {grown >> 20} MiB for files of {size} bytes"
    return finding, outcome


def _bad_text(text: str) -> str | None:
    """An error is one line that can be printed, and sends nobody to run code."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"an error that cannot be printed: {ascii(text)[:300]}"
    if "\n" in text or len(text) > 3000 or "weights_only" in text:
        return f"an error that is no line: {text[:300]!r} ({len(text)} characters)"
    return None


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


def _copy(source: str, target: str) -> None:
    """What is large is not mutated, but linked: a bundle's weights."""
    (os.link if os.path.getsize(source) > 200_000 else shutil.copy)(source, target)


def _pipes(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_fifo()]


if __name__ == "__main__":
    seed, first, last, bundle, keep = sys.argv[1:]
    main(int(seed), int(first), int(last), Path(bundle) if bundle else None, Path(keep) if keep else None)
