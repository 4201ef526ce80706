"""SIGTERM cleans up as Ctrl-C does."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys, time
from pathlib import Path
from mythos_export.cli.termination import terminable
from mythos_export.destination import staged

with terminable("terminated; no bundle was written"), staged(Path(sys.argv[1]), force=False) as folder:
    (folder / "half").write_text("written")
    print("filling", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("ignored", [False, True])
def test_an_export_that_is_terminated_leaves_nothing(tmp_path: Path, ignored: bool) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" * ignored + CODE.replace("60", "0.5")
    process = subprocess.Popen(
        [sys.executable, "-c", code if ignored else CODE, str(tmp_path / "new" / "bundle")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "filling\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    if ignored:  # by whoever started it, such as nohup for another signal
        assert process.returncode == 0 and (tmp_path / "new" / "bundle" / "half").exists()
        return
    assert (process.returncode, said) == (143, "terminated; no bundle was written\n")
    assert list(tmp_path.iterdir()) == []
