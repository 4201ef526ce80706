"""What the README tells to type, typed; and that a machine without PyTorch serves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from served_bundles import serving

README = Path(__file__).parents[3] / "README.md"


def test_the_readme_s_curl_streams_depths(small: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    found = re.search(r"^    (curl -N localhost:8000.*?')\n\n", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    with serving(small, name="text") as server:
        command = found[1].replace("localhost:8000", server.url)
        said = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True).stdout
    events = [line[6:] for line in said.splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    depths = [depth for event in events for depth in json.loads(event)["choices"][0]["depth"]]
    assert len(depths) == 24 and min(depths) >= 1


def test_nothing_of_it_needs_pytorch() -> None:
    hidden = ("torch", "mythos_export", "mythos_model", "onnx")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden!r}));"
        "import mythos_runtime.server.app, mythos_runtime.server.command, mythos_runtime.cli"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
