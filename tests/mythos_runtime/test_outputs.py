"""Files named for output: tried before the work, written whole or not at all, and one sentence where that fails."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from golden_bundles import Bundles

from mythos_runtime.cli import mythos
from mythos_runtime.errors import RequestError, StorageError
from mythos_runtime.outputs import check_file_place, check_folder_place, write_output


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "there is no space left on the disk; make room, or name another place with --to"),
        (errno.EDQUOT, "the disk quota is used up; make room, or name another place with --to"),
        (errno.EROFS, "the file system is read-only; name another place with --to"),
    ],
)
def test_a_failed_write_leaves_what_was_there(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("before")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    for name in ("file", "new"):
        with pytest.raises(StorageError) as refused:
            write_output(tmp_path / name, "after", "--to")
        assert str(refused.value) == f"cannot write {tmp_path / name}: {words}"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


def test_what_can_be_no_file_is_the_request_s_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, words in (
        (tmp_path / "a" / "b", f"there is no folder {tmp_path / 'a'}; make it, or"),
        (tmp_path, "it is a folder"),
        (tmp_path / "file" / "x", "a file stands where a folder should"),
    ):
        with pytest.raises(RequestError, match=f"cannot write {path}: {words}"):
            check_file_place(path, "--to")
        with pytest.raises(RequestError, match=f"cannot write {path}: {words}"):
            write_output(path, "x", "--to")
    with pytest.raises(RequestError, match="a file stands where a folder should"):
        check_folder_place(tmp_path / "file" / "x", "--to")
    check_folder_place(tmp_path / "a" / "b", "--to")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_permission_is_exit_code_3() -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        os.chmod(name, 0o555)
        if user == 0:  # who may write everywhere
            os.seteuid(65534)
        try:
            for check in (check_file_place, check_folder_place):
                with pytest.raises(StorageError, match=f"cannot write {name}/x: permission denied"):
                    check(Path(name) / "x", "--to")
        finally:
            os.seteuid(user)
            os.chmod(name, 0o755)


def test_links_and_pipes_stay(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_output(tmp_path / "link", "text", "--to")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "text"
    check_file_place(Path(os.devnull), "--to")
    write_output(Path(os.devnull), "text", "--to")
    assert not Path(os.devnull).is_file()


def test_the_commands_look_before_the_work(bundles: Bundles, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bundle = str(bundles["mla_decode"])
    for arguments in (
        ["run", bundle, "--ids", "1", "--depth-trace", str(tmp_path / "no" / "x.json")],
        ["plan", "1b", "--html", str(tmp_path / "no" / "x.html")],
        ["verify", bundle, "--report", str(tmp_path / "file" / "x")],
        ["bench", bundle, "-o", str(tmp_path / "file" / "x")],
    ):
        result = CliRunner().invoke(mythos, arguments)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert result.stderr.startswith("error: cannot write ") and result.stderr.count("\n") == 1
