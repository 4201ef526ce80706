"""The C++ runtime's library: found or not, of another version, and its structs as ctypes has them."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest
from engines import needs_native
from golden_bundles import Bundles

from mythos_runtime import load
from mythos_runtime.engine import EngineOptions, open_engine
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.native import library, structs
from mythos_runtime.errors import BackendMissing, RequestError
from mythos_runtime.session import Options

pytestmark = needs_native
HEADERS = Path(__file__).parents[3] / "runtimes/cpp/include"


def test_without_the_library_pythons_serves(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.LIBRARY_VARIABLE, "none")
    assert isinstance(open_engine(bundles["mla_decode"], EngineOptions(memory=4 << 20)), Engine)
    assert "is none" in str(library.why_no_native_engine())
    with pytest.raises(BackendMissing, match="is none"):
        open_engine(bundles["mla_decode"], options=Options(engine="native"))
    monkeypatch.setenv(library.LIBRARY_VARIABLE, "/nowhere.so")
    with pytest.raises(BackendMissing, match=r"names /nowhere\.so, which does not exist"):
        load(bundles["mla_decode"])
    monkeypatch.delenv(library.LIBRARY_VARIABLE)
    monkeypatch.setattr(library, "NATIVE", Path("/nowhere"))
    assert "not installed" in str(library.why_no_native_engine())
    assert isinstance(open_engine(bundles["mla_decode"], EngineOptions(memory=4 << 20)), Engine)


@pytest.mark.parametrize("made", ["text", "other", "older"])
def test_a_library_that_does_not_fit(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    path = tmp_path / "libmythos_runtime.so"
    if made == "text":
        path.write_text("no library")
    else:
        names = [] if made == "other" else [name for name in library._FUNCTIONS if name != "mythos_version"]
        source = "".join(f"int {name}(void) {{ return 3; }}\n" for name in names)
        if made == "older":
            source += 'const char* mythos_version(void) { return "0.0.1"; }\n'
        subprocess.run(["gcc", "-shared", "-fPIC", "-xc", "-", "-o", path], input=source.encode(), check=True)
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(path))
    said = str(library.why_no_native_engine())
    assert str(path) in said and ("of version 0.0.1" if made == "older" else "cannot be used") in said
    assert isinstance(open_engine(bundles["mla_decode"], EngineOptions(memory=4 << 20)), Engine)
    with pytest.raises(BackendMissing, match=r"libmythos_runtime\.so"):
        load(bundles["mla_decode"], engine="native").generate_all([[1]], max_new_tokens=1)


def test_what_it_does_not_run(bundles: Bundles) -> None:
    with pytest.raises(BackendMissing, match="on the CPU"):
        open_engine(bundles["mla_decode"], options=Options(engine="native"), backend="eager")
    for options in ({"backend": "eager"}, {"provider": "cuda"}):
        with pytest.raises(BackendMissing, match="on the CPU"):
            load(bundles["mla_decode"], engine="native", **options)
    with pytest.raises(RequestError, match="no engine 'rust'"):
        Options(engine="rust")  # type: ignore[arg-type]


# -- the C interface ---------------------------------------------------------------------------------------------------

_STRUCTS: dict[str, type[ctypes.Structure]] = {
    "mythos_load_options": structs.LoadOptions,
    "mythos_forward_options": structs.ForwardOptions,
    "mythos_engine_options": structs.EngineOptions,
    "mythos_request": structs.Request,
    "mythos_token": structs.Token,
    "mythos_tick": structs.Tick,
    "mythos_usage": structs.Usage,
}


def test_structs_lie_in_memory_as_the_compiler_lays_them(tmp_path: Path) -> None:
    flat = {"steps", "rows", "late", "drafted", "accepted"}  # in mythos_usage.counts
    lines = ['#include "mythos_engine.h"', "#include <stdio.h>", "int main(void) {"]
    expected = []
    for name, struct in _STRUCTS.items():
        lines.append(f'  printf("%zu\\n", sizeof({name}));')
        expected.append(ctypes.sizeof(struct))
        for field, *_ in struct._fields_:
            place = f"counts.{field}" if name == "mythos_usage" and field in flat else field
            lines.append(f'  printf("%zu\\n", offsetof({name}, {place}));')
            expected.append(getattr(struct, field).offset)
    program = tmp_path / "layout"
    source = "\n".join([*lines, "}"]).encode()
    subprocess.run(["gcc", "-xc", "-", f"-I{HEADERS}", "-o", program], input=source, check=True)
    printed = subprocess.run([program], capture_output=True, check=True).stdout.split()
    assert [int(number) for number in printed] == expected
