"""ONNX Runtime would report its use to Microsoft. Here it does not, unless somebody says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cpp_programs import RUN, needs_cpp
from golden_bundles import Bundles

VARIABLE = "ORT_DISABLE_TELEMETRY"

LOADS = "from mythos_runtime import load; load(sys.argv[1], engine=sys.argv[2], op_library=None)"
"""In ONNX Runtime of either runtime."""


def in_a_home(home: Path, *command: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program whose own files would be in `home`, as nobody said anything about telemetry."""
    for name in ("home", "temporary"):
        (home / name).mkdir(parents=True)
    inherited = {name: value for name, value in os.environ.items() if name != VARIABLE and "XDG" not in name}
    places = {"HOME": str(home / "home"), "TMPDIR": str(home / "temporary")}
    environment = {**inherited, **places, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)


def written(home: Path) -> list[str]:
    return [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("first", ["mythos_runtime", "mythos_export", "mythos_export.targets.onnxruntime"])
def test_loading_a_bundle_leaves_no_trace(first: str, bundles: Bundles, tmp_path: Path) -> None:
    code = f"import sys, {first}; {LOADS}"
    done = in_a_home(tmp_path / "own", sys.executable, "-c", code, bundles["mla_decode"], "python")
    assert done.returncode == 0, done.stderr
    assert written(tmp_path / "own") == []


@needs_cpp
def test_nor_does_it_in_cpp(bundles: Bundles, tmp_path: Path) -> None:
    bundle = bundles["mla_decode"]
    done = in_a_home(tmp_path / "program", RUN, bundle, "--ids", "1", "--max-new-tokens", "1")
    assert done.returncode == 0, done.stderr
    library = RUN.with_name("libmythos_runtime.so")
    code = f"import sys; {LOADS}"
    done = in_a_home(
        tmp_path / "library", sys.executable, "-c", code, bundle, "native", MYTHOS_RUNTIME_LIBRARY=str(library)
    )
    assert done.returncode == 0, done.stderr
    assert written(tmp_path / "program") == written(tmp_path / "library") == []


@pytest.mark.parametrize("value", ["0", ""])
def test_what_somebody_chose_stays(value: str, tmp_path: Path) -> None:
    code = f"import os, mythos_runtime, mythos_export; print(repr(os.environ[{VARIABLE!r}]))"
    done = in_a_home(tmp_path / "own", sys.executable, "-c", code, **{VARIABLE: value})
    assert done.stdout == f"{value!r}\n", done.stderr


@needs_cpp
@pytest.mark.parametrize(("chosen", "found"), [(None, "1"), ("0", "0"), ("", "")])
def test_the_library_in_cpp_sets_it_when_it_is_loaded(chosen: str | None, found: str, tmp_path: Path) -> None:
    """Before a program can have threads, and before it can have opened ONNX Runtime through it."""
    code = (
        "import ctypes, sys; ctypes.CDLL(sys.argv[1]); c = ctypes.CDLL(None); c.getenv.restype = ctypes.c_char_p; "
        f"print(c.getenv({VARIABLE.encode()!r}).decode())"
    )
    variables = {} if chosen is None else {VARIABLE: chosen}
    library = RUN.with_name("libmythos_runtime.so")
    done = in_a_home(tmp_path / "own", sys.executable, "-c", code, library, **variables)
    assert done.stdout == f"{found}\n", done.stderr
