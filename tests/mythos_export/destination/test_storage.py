"""Disks that are full, read-only or not ours."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from destinations import needs_namespaces, put

from mythos_export.errors import StorageError

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
