"""Kills exports at random moments, and looks at what has the name then.

    python random_kills.py FOLDER READY SEED KILLS

Every second pair of exports runs in a PID namespace of its own, as on another host, where the system makes such.
READY is a finished bundle. Here the stages of the pipeline do no work but write its files, slowly; the rest, from
`export()` to the last rename, is the real thing. Half of the exports replace a bundle, the others find none. Prints one
JSON line: what was found how often, and what was wrong.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mythos_export import making, pipeline
from mythos_export.lower import Lowered
from mythos_export.package import Bundle
from mythos_export.verification import Verified
from mythos_runtime import BundleError, read_manifest

_NEW_USER, _NEW_PID = 0x10000000, 0x20000000  # CLONE_NEWUSER, CLONE_NEWPID
OLD, NEW = "2026-01-01T00:00:00+00:00", "2026-02-02T00:00:00+00:00"
PAUSE = 0.02


def fake_stages(ready: Path) -> None:
    manifest = read_manifest(ready)
    loaded = SimpleNamespace(
        model=SimpleNamespace(spec=manifest.spec),
        checkpoint=SimpleNamespace(notes=(), source=ready, folder=ready, sources=None),
        formats=None,
        bytes=0,
    )

    def lower(captured: Any, weights: Any, dump: Path | None = None) -> Lowered:
        folder = weights.path.parent
        for name in manifest.files:
            (folder / name).parent.mkdir(exist_ok=True)
            with (folder / name).open("wb") as stream:
                content = (ready / name).read_bytes()
                for part in (content[:10], content[10:]):
                    stream.write(part)
                    stream.flush()
                    time.sleep(PAUSE)
        return Lowered(folder / "model.onnx", manifest.spec, ())

    def package(folder: Path, *rest: Any) -> Bundle:
        return Bundle(folder, replace(manifest, files={}, created=NEW), ()).grown()

    def verify(made: making.Made, *rest: Any) -> Verified:
        time.sleep(PAUSE)
        return Verified(made.bundle, None)

    fakes: dict[str, Any] = {
        "load": lambda *rest: loaded,
        "write_weights": lambda model, sources, path, *rest: SimpleNamespace(
            path=path, model=model, close=lambda: None
        ),
        "capture": lambda model: None,
        "lower": lower,
        "capture_rows": lambda model: None,
        "lower_rows": lambda *rest: (),
        "build": lambda *rest: (),
        "package": package,
        "verify": verify,
        "choose": lambda loaded: "full",
    }
    for name, fake in fakes.items():
        home = pipeline if name in ("load", "verify", "choose") else making
        assert hasattr(home, name)
        setattr(home, name, fake)


def start(ready: Path, place: Path, elsewhere: bool = False) -> tuple[int, int]:
    """Exports in a new process, `elsewhere` in a PID namespace of its own: the ids to kill and to wait for."""
    answer, tell = os.pipe()
    child = os.fork()
    if child == 0:
        inner = os.fork() if elsewhere and enter_namespace() else 0
        if inner == 0:
            status = 1
            try:  # whatever happens: leaving through exit() may wait for threads that only the parent has
                assert not elsewhere or os.getpid() == 1
                pipeline.export(ready, place, tokenizer="none", force=True)
                status = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.write(tell, str(inner).encode())
        os.waitpid(inner, 0)
        os._exit(0)
    os.close(tell)
    with os.fdopen(answer) as stream:
        return (int(stream.read(10)) if elsewhere else child), child


def enter_namespace() -> bool:
    """The next child of this process is the first of a new PID namespace; False where the system makes none."""
    libc = ctypes.CDLL(None)
    return any(libc.unshare(flags) == 0 for flags in (_NEW_PID, _NEW_PID | _NEW_USER))


def makes_namespaces() -> bool:
    child = os.fork()
    if child == 0:
        os._exit(not enter_namespace())
    return os.waitpid(child, 0)[1] == 0


def found(place: Path) -> str:
    try:
        created = read_manifest(place).created
    except BundleError as error:
        return "nothing" if not place.exists() else f"broken: {error}"
    return {OLD: "old", NEW: "new"}.get(created, f"strange: {created}")


def put_old(ready: Path, place: Path) -> None:
    shutil.copytree(ready, place)
    bundle = Bundle(place, replace(read_manifest(place), created=OLD), ())
    bundle.finish()


def main(folder: Path, ready: Path, seed: int, kills: int) -> None:
    fake_stages(ready)
    chance = random.Random(seed)
    place, seen, hosts, wrong = folder / "bundle", Counter[str](), Counter[str](), []
    namespaces = makes_namespaces()
    folder.mkdir()
    since = time.monotonic()
    _, status = os.waitpid(start(ready, place)[1], 0)
    whole = time.monotonic() - since
    assert status == 0 and found(place) == "new"
    for kill in range(kills):
        shutil.rmtree(place, ignore_errors=True)
        with_old = kill % 2 == 0
        if with_old:
            put_old(ready, place)
        elsewhere = namespaces and kill % 4 >= 2
        target, child = start(ready, place, elsewhere)
        hosts["another" if elsewhere else "here"] += 1
        # Most of an export is filling the folder; every third kill comes near its end, where the names change.
        moment = chance.uniform(0.0, 1.1) if kill % 3 else chance.uniform(0.9, 1.1)
        time.sleep(whole * moment)
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself, and in the other namespace be gone
            os.kill(target, signal.SIGKILL)
        os.waitpid(child, 0)
        state = found(place)
        seen[state] += 1
        if state not in ("new", "old" if with_old else "nothing"):
            wrong.append(f"kill {kill} at {moment:.2f}: {state}")
    _, status = os.waitpid(start(ready, place)[1], 0)
    left = sorted(path.name for path in folder.iterdir())
    if status != 0 or left != ["bundle"] or found(place) != "new":
        wrong.append(f"the export after all kills: status {status}, {left}, {found(place)}")
    print(json.dumps({"seen": seen, "wrong": wrong, "hosts": hosts, "namespaces": namespaces}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
