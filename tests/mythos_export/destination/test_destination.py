"""Nothing at a destination is lost, and nothing half written is left there."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
from destinations import alone, content, put, write_bundle

from mythos_export.destination import renames, staged
from mythos_export.errors import PackageError
from mythos_runtime.manifest import FORMAT_VERSION
from mythos_runtime.staging import OLD, mend, stages_of


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
