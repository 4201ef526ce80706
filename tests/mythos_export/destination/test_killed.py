"""What a killed export left, and what finishes or removes it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from destinations import alone, content, needs_namespaces, put, write_bundle

from mythos_export.errors import PackageError
from mythos_runtime.errors import BundleError
from mythos_runtime.staging import LOCK, NEW, OLD, State, mend, stage_name, stages_of, state_of

KILLED = """
import os, signal, sys
from pathlib import Path
from mythos_export.destination import staged

with staged(Path(sys.argv[1]), force=True) as folder:
    (folder / "half").write_text("written")
    print("filling", flush=True)
    sys.stdin.read()
"""


def is_alive(stage: Path) -> bool:
    with state_of(stage) as state:
        return state is State.ALIVE


def start_export(place: Path, *prefix: str) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, "-c", KILLED, str(place)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "filling\n"
    return process


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    process = start_export(place)
    process.kill()
    process.communicate()
    assert stages_of(place)
    put(tmp_path / "other")
    assert stages_of(place)  # another name's business
    put(place)
    assert content(place) == "new" and alone(place)


@needs_namespaces
def test_a_stage_of_another_container_stays_as_long_as_it_is_written(tmp_path: Path) -> None:
    """Its process has a number there that means nothing here, or means another process."""
    place = tmp_path / "bundle"
    process = start_export(place, "unshare", "-Urpf", "--kill-child", "--mount-proc")
    with pytest.raises(PackageError, match="another export is writing"):
        put(place)
    (stage,) = stages_of(place)
    assert (stage / NEW / "half").read_text() == "written"
    process.kill()  # and with it, as it is the first process there, all of its namespace
    assert process.stdout is not None and process.stdout.read() == ""  # they are gone: only now may its input end
    process.communicate()
    while is_alive(stage):
        time.sleep(0.01)
    put(place)
    assert content(place) == "new" and alone(place)


def test_a_stage_whose_lock_cannot_be_asked_for_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mythos_runtime.staging as staging

    place = tmp_path / "bundle"
    stage = tmp_path / stage_name("bundle", "0123abcd")
    (stage / NEW).mkdir(parents=True)
    (stage / LOCK).touch()
    monkeypatch.setattr(staging, "fcntl", None)  # as on file systems without locks
    put(place)
    assert content(place) == "new" and (stage / NEW).is_dir()


@pytest.mark.parametrize("force", [False, True])
def test_between_two_renames_the_old_bundle_is_put_back(tmp_path: Path, force: bool) -> None:
    place = tmp_path / "bundle"
    stage = tmp_path / stage_name("bundle", "0123abcd")
    stage.mkdir()
    (stage / LOCK).touch()
    write_bundle(stage / OLD, "old")
    write_bundle(stage / NEW, "new")
    if force:
        put(place, "newer", force=True)
        assert content(place) == "newer" and alone(place)
        return
    with pytest.raises(PackageError, match="exists"):
        put(place)
    assert content(place) == "old"


def test_mending_waits_for_an_export_that_is_between_its_renames(tmp_path: Path) -> None:
    import fcntl

    place = tmp_path / "bundle"
    stage = tmp_path / stage_name("bundle", "0123abcd")
    stage.mkdir()
    write_bundle(stage / OLD, "old")
    write_bundle(tmp_path / "made", "new")
    with open(stage / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        timer = threading.Timer(0.2, lambda: os.rename(tmp_path / "made", place))  # whole, as an export does it
        timer.start()
        mend(place)
    assert content(place) == "new"
    timer.join()


def test_a_bundle_that_cannot_be_put_back_is_said_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = tmp_path / stage_name("bundle", "0123abcd")
    stage.mkdir()
    (stage / LOCK).touch()
    write_bundle(stage / OLD, "old")

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(BundleError, match="whole in .*old"):
        mend(tmp_path / "bundle")
