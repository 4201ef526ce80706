"""What an export of a real size takes: `python -m benchmarks.real_size.exports`.

A checkpoint of random weights of the variant 1b is made in build/real_size, unless it is there, and exported to the end
in each way, one after the other. Of every export: seconds, CPU seconds (which do not depend on who else computes), and
two peaks of memory. `resident` is the kernel's own peak of the largest process (ru_maxrss); pages of mapped files, the
checkpoint's and the bundle's, count in it as long as there is room for them. `held` is what cannot be given back:
anonymous and shared memory of all processes together, looked at every tenth of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.real_size.checkpoint import write_checkpoint
from mythos_export.bench.machine import describe_machine, usable_cores
from mythos_runtime.manifest import read_manifest

ROOT = Path(__file__).parents[2]
WAYS = {  # the options of an export
    "fp32, linked": ("--precision", "fp32", "--weights", "link"),
    "fp32": ("--precision", "fp32"),
    "int8": ("--precision", "int8"),
    "int4": ("--precision", "int4"),
}
_EVERY = 0.1  # seconds


class Watched:
    """A process and its children, looked at until it ends."""

    def __init__(self, process: psutil.Process) -> None:
        self.process, self.held, self.ended = process, 0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        while not self.ended.wait(_EVERY):
            with contextlib.suppress(psutil.NoSuchProcess):
                together = [self.process, *self.process.children(recursive=True)]
                self.held = max(self.held, sum(_held(each) for each in together))


def _held(process: psutil.Process) -> int:
    """Bytes of anonymous and shared memory."""
    with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        text = Path(f"/proc/{process.pid}/status").read_text()
        lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        return sum(int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem") if name in lines)
    return 0


def measure(checkpoint: Path, way: str, output: Path) -> dict[str, Any]:
    """One export to its end, in a process of its own."""
    code = "from mythos_export.cli import export_command; export_command()"
    options = [str(checkpoint), *WAYS[way], "--verify", "twin", "-o", str(output), "--force"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    load = os.getloadavg()[0]
    command = [sys.executable, "-c", code, *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watched = Watched(psutil.Process(process.pid))
    assert process.stderr is not None
    said = [line.rstrip() for line in process.stderr]
    status = process.wait()
    watched.ended.set()
    watched.thread.join()
    if status:
        sys.exit(f"the export {way} ended with {status}: {' '.join(said[-5:])}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    manifest = read_manifest(output, verify_hashes=False)
    weights = 0 if manifest.links is None else manifest.links.bytes
    own = sum(entry.bytes for entry in manifest.files.values())
    return {
        "way": way,
        "command": f"mythos-export CHECKPOINT {' '.join(WAYS[way])} --verify twin",
        "seconds": time.perf_counter() - started,
        "load_before": load,
        "user": used.ru_utime - before.ru_utime,
        "system": used.ru_stime - before.ru_stime,
        "peak_resident": used.ru_maxrss * 1024,
        "peak_held": watched.held,
        "bundle": own,
        "weights": manifest.files["weights.safetensors"].bytes,
        "linked": weights,
        "state": manifest.targets[0].state,
        "stages": [line.strip(" ✓") for line in said if "✓" in line],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", action="append", choices=list(WAYS), help="default: all")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "build" / "real_size" / "1b")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "real_size")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "real_size_exports.json")
    given = parser.parse_args()
    if not given.checkpoint.exists():
        write_checkpoint("1b", given.checkpoint)
    known = json.loads(given.out.read_text())["exports"] if given.out.exists() else []
    exports = {each["way"]: each for each in known}
    for way in given.way or WAYS:
        # One process's peak at a time: the kernel's counter of children is the largest of all so far.
        text = subprocess.run(
            [sys.executable, "-m", __spec__.name, "--one", way, str(given.checkpoint), str(given.folder / "bundle")],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        exports[way] = json.loads(text)
        shutil.rmtree(given.folder / "bundle")
        machine = describe_machine(2, usable_cores(2))
        document = {"model": "1b, random weights in float32", "machine": machine, "exports": list(exports.values())}
        given.out.write_text(json.dumps(document, indent=1) + "\n")
    table = Table("export", "seconds", "CPU seconds", "peak held", "peak resident", "bundle / its weights")
    for each in exports.values():
        cpu, gb = each["user"] + each["system"], 1e9
        share = each["bundle"] / max(each["weights"], 1) if not each["linked"] else each["bundle"] / each["linked"]
        table.add_row(
            each["way"],
            f"{each['seconds']:.0f}",
            f"{cpu:.0f}",
            f"{each['peak_held'] / gb:.2f} GB",
            f"{each['peak_resident'] / gb:.2f} GB",
            f"{share:.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(Path(sys.argv[3]), sys.argv[2], Path(sys.argv[4]))))
    else:
        main()
