"""Kills an export before each of its steps in the file system, one after the other, and looks at what is left.

    python every_kill.py FOLDER old|new exchange|renames

FOLDER holds an old bundle, or none, at first. Prints one JSON line: how many kills, and what was wrong after any.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from mythos_export.destination import renames, staged
from mythos_runtime.staging import mend

FILES = ("model.onnx", "engines/a.engine")


def write_bundle(folder: Path, text: str) -> None:
    (folder / "engines").mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text(text)
    listed = {name: {"sha256": "0" * 64, "bytes": len(text)} for name in FILES}
    rest = dict.fromkeys(("created", "precision", "source", "targets", "tool_versions"))
    (folder / "manifest.json").write_text(json.dumps({"format_version": 1, "files": listed, **rest}))


def export(place: Path, text: str) -> None:
    with staged(place, force=True) as folder:
        write_bundle(folder, text)


def killed_at(step: int, place: Path) -> bool:
    """Export in a child that kills itself before its step number `step`; False where it ended before that."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if event.startswith(("os.", "open", "shutil.", "ctypes.")):
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        export(place, "new")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def content(place: Path) -> str:
    """What bundle has the name now: "old", "new", "nothing", or what is wrong with it."""
    mend(place)
    if not place.exists():
        return "nothing"
    texts = {(place / name).read_text() if (place / name).exists() else "missing" for name in FILES}
    whole = len(texts) == 1 and (place / "manifest.json").exists()
    return texts.pop() if whole else f"half: {sorted(texts)}"


def main(folder: Path, first: str, system: str) -> None:
    place, wrong, step, seen = folder / "bundle", [], 0, set()
    if system == "renames":
        renames._renameat2 = lambda *arguments: False
    killed = True
    while killed:
        step += 1
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if first == "old":
            write_bundle(place, "old")
        killed = killed_at(step, place)
        found = content(place)
        seen.add(found)
        if found not in ("new", "old" if first == "old" else "nothing"):
            wrong.append(f"step {step}: {found}")
        export(place, "next")
        left = [path.name for path in folder.iterdir() if path != place]
        if content(place) != "next" or left:
            wrong.append(f"step {step}: after the next export {content(place)}, beside it {left}")
    print(json.dumps({"kills": step - 1, "seen": sorted(seen), "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
