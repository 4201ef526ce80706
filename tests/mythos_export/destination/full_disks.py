"""Exports a checkpoint onto disks that are too small, each in its own way.

    unshare -Urm python full_disks.py FOLDER CHECKPOINT BYTES...

Prints a line for each size: the error, its exit code, and what is left on the disk.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mythos_export import export
from mythos_export.errors import StorageError


def main(disk: Path, checkpoint: Path, sizes: list[int]) -> None:
    for size in sizes:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
        stages: list[str] = []

        def note(phase: str, part: float | None = None, stages: list[str] = stages) -> None:
            stages.append(phase)

        try:
            export(checkpoint, disk / "bundle", progress=note)
            print("it fits", flush=True)
        except StorageError as error:
            text = str(error).replace(str(disk), "DISK")
            print(f"{stages[-1]} | {error.exit_code} | {text} | {[path.name for path in disk.iterdir()]}", flush=True)
        # Lazily: PyTorch's caches go on holding the captured model, and with it the map of the weights' file.
        subprocess.run(["umount", "--lazy", disk], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(size) for size in sys.argv[3:]])
