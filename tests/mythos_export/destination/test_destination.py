"""Nothing at a destination is lost, and nothing half written is left there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from mythos_export.destination import renames, staged
from mythos_export.errors import PackageError, StorageError
from mythos_runtime.errors import BundleError
from mythos_runtime.manifest import FORMAT_VERSION
from mythos_runtime.staging import LOCK, NEW, OLD, State, mend, stage_name, stages_of, state_of

needs_namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-Urmpf", "true"], capture_output=True).returncode != 0,
    reason="this system makes no new namespaces",
)


def write_bundle(folder: Path, text: str = "new", version: int = 1) -> Path:
    """As much of a bundle as a destination looks at."""
    folder.mkdir(exist_ok=True)
    (folder / "engines").mkdir()
    (folder / "model.onnx").write_text(text)
    (folder / "engines" / "a.engine").write_text(text)
    files = {name: {"sha256": "0" * 64, "bytes": len(text)} for name in ("model.onnx", "engines/a.engine")}
    fields = dict.fromkeys(("created", "precision", "source", "targets", "tool_versions"))
    (folder / "manifest.json").write_text(json.dumps({"format_version": version, "files": files, **fields}))
    return folder


def put(place: Path, text: str = "new", force: bool = False, checkpoint: Path | None = None) -> None:
    with staged(place, force, checkpoint) as folder:
        write_bundle(folder, text)


def content(place: Path) -> str:
    texts = {(place / name).read_text() for name in ("model.onnx", "engines/a.engine")}
    assert len(texts) == 1 and (place / "manifest.json").is_file()
    return texts.pop()


def alone(place: Path) -> bool:
    """Whether nothing of an export is left beside a destination."""
    return [path.name for path in place.parent.iterdir() if path.name.startswith(".")] == []


@pytest.fixture(params=["exchange", "two renames"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of file systems."""
    if request.param == "two renames":
        monkeypatch.setattr(renames, "_renameat2", lambda *arguments: False)
    return str(request.param)


def test_a_bundle_is_put_there_and_replaced(tmp_path: Path, system: str) -> None:
    place = tmp_path / "deep" / "down" / "bundle"
    put(place, "first")
    with pytest.raises(PackageError, match="exists"):
        put(place, "second")
    assert content(place) == "first"
    put(place, "second", force=True)
    assert content(place) == "second" and alone(place)


def test_an_export_that_fails_leaves_nothing_and_the_old_bundle(tmp_path: Path) -> None:
    place = write_bundle(tmp_path / "bundle", "old")
    for output in (place, tmp_path / "new" / "deeper" / "bundle"):
        with pytest.raises(KeyboardInterrupt), staged(output, force=True) as folder:
            write_bundle(folder)
            raise KeyboardInterrupt
    assert content(place) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_every_format_version_is_known_as_ours(tmp_path: Path, version: int) -> None:
    put(write_bundle(tmp_path / "bundle", "old", version), force=True)
    assert content(tmp_path / "bundle") == "new"


def strangers(place: Path) -> dict[str, str]:
    """What must survive: name -> what makes the folder no bundle of ours, or more than one."""

    def web(name: str) -> None:
        (place / name).mkdir(parents=True)
        (place / name / "manifest.json").write_text('{"name": "app", "files": {}}')

    def bundle(name: str) -> Path:
        return write_bundle(place / name)

    (place / "file").write_text("mine")
    web("web project")
    (bundle("notes") / "notes.txt").write_text("mine")
    (bundle("hidden") / ".git").mkdir()
    (bundle("nested") / "engines" / "b.engine").write_text("mine")
    (bundle("linked folder") / "more").symlink_to(place / "notes")
    linked = bundle("linked file")
    (linked / "model.onnx").unlink()
    (linked / "model.onnx").symlink_to(place / "notes" / "notes.txt")
    (bundle("future") / "manifest.json").write_text(
        (place / "notes" / "manifest.json").read_text().replace('"format_version": 1', '"format_version": 99')
    )
    (bundle("cut") / "manifest.json").write_text('{"format_version": 1, "fil')
    (bundle("escapes") / "manifest.json").write_text(
        (place / "notes" / "manifest.json").read_text().replace("model.onnx", "../model.onnx")
    )
    fifo = bundle("fifo")
    (fifo / "manifest.json").unlink()
    os.mkfifo(fifo / "manifest.json")
    elsewhere = bundle("manifest elsewhere")
    (elsewhere / "manifest.json").unlink()
    (elsewhere / "manifest.json").symlink_to(place / "notes" / "manifest.json")
    (place / "no manifest").mkdir()
    (place / "no manifest" / "thesis.tex").write_text("mine")
    return {
        "file": "it is a file",
        "web project": "is not a bundle's",
        "notes": "it holds notes.txt",
        "hidden": "it holds .git",
        "nested": "it holds engines/b.engine",
        "linked folder": "it holds more",
        "linked file": "model.onnx in it is not a regular file",
        "future": "format version",
        "cut": "not valid JSON",
        "escapes": "does not list its files",
        "fifo": "manifest.json is not a regular file",
        "manifest elsewhere": "it has no manifest.json of a bundle",
        "no manifest": "it has no manifest.json of a bundle",
    }


def snapshot(folder: Path) -> list[tuple[str, int, bytes]]:
    found = []
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        text = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found.append((str(path), state.st_ino, text))
    return found


def test_what_is_not_only_a_bundle_of_ours_stays_with_force_too(tmp_path: Path) -> None:
    reasons = strangers(tmp_path)
    before = snapshot(tmp_path)
    for name, reason in reasons.items():
        for force in (False, True):
            with pytest.raises(PackageError, match=reason if force else "exists") as caught:
                put(tmp_path / name, force=force)
            assert "\n" not in str(caught.value)
    assert snapshot(tmp_path) == before


def test_an_empty_folder_is_taken_with_force(tmp_path: Path, system: str) -> None:
    (tmp_path / "empty").mkdir()
    put(tmp_path / "empty", force=True)
    assert content(tmp_path / "empty") == "new"


@pytest.mark.parametrize("checkpoint", ["bundle", "bundle/model.onnx", ".", "linking", "file link"])
def test_what_the_checkpoint_lies_in_or_around_stays(tmp_path: Path, checkpoint: str) -> None:
    place = write_bundle(tmp_path / "bundle", "old")
    (tmp_path / "linking").mkdir()
    (tmp_path / "linking" / "model.safetensors").symlink_to(place / "model.onnx")
    (tmp_path / "file link").symlink_to(place / "model.onnx")
    with pytest.raises(PackageError, match="the checkpoint"):
        put(place, force=True, checkpoint=tmp_path / checkpoint)
    assert content(place) == "old"


def test_a_new_folder_in_the_checkpoints_own_is_no_danger(tmp_path: Path) -> None:
    put(tmp_path / "bundle", checkpoint=tmp_path)
    assert content(tmp_path / "bundle") == "new"


@pytest.mark.parametrize(
    ("output", "words"),
    [(".", "no folder of its own"), ("..", "no folder of its own"), ("/", "no folder of its own"), ("", "no folder"),
     ("a/..", "no folder of its own"), ("file/bundle", "is a file"), ("file/deep/bundle", "is a file"),
     ("/proc", "mount point"), ("here", "current folder"), ("loop", "leads to itself"), ("n" * 250, "too long")],
)  # fmt: skip
def test_no_place_for_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, words: str) -> None:
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    Path("file").write_text("mine")
    Path("here").symlink_to(tmp_path / "inside")
    Path("loop").symlink_to("loop")
    for force in (False, True):
        with pytest.raises(PackageError, match=words):
            put(Path(output), force=force)
    assert sorted(os.listdir()) == ["file", "here", "loop"] and os.listdir(tmp_path) == ["inside"]


def test_a_trailing_slash_changes_nothing(tmp_path: Path) -> None:
    put(Path(f"{tmp_path}/bundle/"))
    assert content(tmp_path / "bundle") == "new"


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path, system: str) -> None:
    (tmp_path / "versions").mkdir()
    place = write_bundle(tmp_path / "versions" / "3", "old")
    (tmp_path / "current").symlink_to("versions/3")
    (tmp_path / "next").symlink_to("versions/4")
    with pytest.raises(PackageError, match="exists"):
        put(tmp_path / "current")
    put(tmp_path / "current", force=True)
    put(tmp_path / "next")
    assert (tmp_path / "current").is_symlink() and content(place) == "new"
    assert (tmp_path / "next").is_symlink() and content(tmp_path / "versions" / "4") == "new"


# -- others at work ---------------------------------------------------------------------------------------------------


def test_what_came_meanwhile_stays(tmp_path: Path, system: str) -> None:
    """Whatever it is: somebody's folder, a file, or the bundle of an export that this one could not see."""
    for force in (False, True):
        for name, come in (
            ("empty", lambda place: place.mkdir()),
            ("file", lambda place: place.write_text("mine")),
            ("bundle", lambda place: write_bundle(place, "mine")),
        ):
            place = tmp_path / f"{name}, {force}"
            with pytest.raises(PackageError, match="by somebody else"), staged(place, force) as folder:
                write_bundle(folder)
                come(place)
            assert place.exists() and (name != "bundle" or content(place) == "mine") and alone(place)


def test_a_bundle_that_was_replaced_or_added_to_meanwhile_stays(tmp_path: Path, system: str) -> None:
    place = write_bundle(tmp_path / "bundle", "old")
    with pytest.raises(PackageError, match="by somebody else"), staged(place, force=True) as folder:
        write_bundle(folder)
        shutil.rmtree(place)
        write_bundle(place, "another")
    assert content(place) == "another"
    with pytest.raises(PackageError, match="it holds notes.txt"), staged(place, force=True) as folder:
        write_bundle(folder)
        (place / "notes.txt").write_text("mine")
    assert content(place) == "another" and (place / "notes.txt").read_text() == "mine" and alone(place)


def test_a_file_that_comes_in_the_last_moment_brings_the_old_bundle_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write_bundle(tmp_path / "bundle", "old")
    swap = renames.exchange

    def late(first: Path, second: Path) -> bool:
        (place / "notes.txt").write_text("mine")
        return swap(first, second)

    monkeypatch.setattr(renames, "exchange", late)
    with pytest.raises(PackageError, match=r"notes\.txt"):
        put(place, force=True)
    assert content(place) == "old" and (place / "notes.txt").read_text() == "mine"


def test_of_two_exports_to_one_name_the_later_fails_and_the_first_stays(tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    with staged(place, force=False) as folder:
        write_bundle(folder, "first")
        for force in (False, True):
            with pytest.raises(PackageError, match="another export is writing"):
                put(place, "second", force)
        put(tmp_path / "other", "second")
    assert content(place) == "first" and alone(place)


def test_many_exports_at_once_leave_one_bundle(tmp_path: Path) -> None:
    place, results = tmp_path / "bundle", []

    def one(number: int) -> None:
        try:
            put(place, str(number))
            results.append(number)
        except PackageError:
            pass

    threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 1 and content(place) == str(results[0]) and alone(place)


def test_the_replaced_bundle_cannot_be_renamed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without exchange: somebody takes the name between the two renames. The old bundle must not be lost."""
    monkeypatch.setattr(renames, "_renameat2", lambda *arguments: False)
    place = write_bundle(tmp_path / "bundle", "old")
    rename = os.rename

    def taken(source: Path, target: Path) -> None:
        rename(source, target)
        if Path(target).name == OLD:
            place.write_text("somebody's")

    monkeypatch.setattr(os, "rename", taken)
    with pytest.raises(PackageError):
        put(place, force=True)
    (stage,) = stages_of(place)
    assert place.read_text() == "somebody's" and content(stage / OLD) == "old"
    monkeypatch.undo()
    place.unlink()
    mend(place)
    assert content(place) == "old"


# -- what was killed --------------------------------------------------------------------------------------------------

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
    with open(stage / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        timer = threading.Timer(0.2, lambda: write_bundle(place, "new"))
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


# -- disks ------------------------------------------------------------------------------------------------------------


ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from mythos_export.destination import staged

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
def attempt():
    try:
        with staged(disk / "deep" / "bundle", force=False) as folder:
            (folder / "weights").write_bytes(bytes(1 << 20))
    except Exception as error:
        print(type(error).__name__, error.exit_code, str(error).replace(str(disk), "DISK"), list(disk.iterdir()))
attempt()
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
attempt()
"""


@needs_namespaces
def test_a_full_and_a_read_only_disk_are_exit_code_3(tmp_path: Path) -> None:
    command = ["unshare", "-Urm", sys.executable, "-c", ON_A_SMALL_DISK, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.stdout.splitlines() == [
        "StorageError 3 cannot write DISK/deep/bundle: there is no space left on the disk; no bundle was written []",
        "StorageError 3 cannot write DISK/deep/bundle: the file system is read-only; no bundle was written []",
    ], found.stderr


def test_no_permission_is_exit_code_3(tmp_path: Path) -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        os.chmod(name, 0o555)
        if user == 0:  # who may write everywhere
            os.seteuid(65534)
        try:
            for place in (Path(name) / "bundle", Path(name) / "deep" / "bundle"):
                with pytest.raises(StorageError, match="cannot write .*permission denied"):
                    put(place)
        finally:
            os.seteuid(user)
            os.chmod(name, 0o755)
        assert os.listdir(name) == []
