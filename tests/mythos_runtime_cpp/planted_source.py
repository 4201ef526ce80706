"""The C++ runtime with a mistake in it: one line of a source is another, and that file alone is compiled again.

The build folder says how: flags.make and link.txt of CMake's Makefiles.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cpp_programs import BUILD, ROOT

SOURCES = ROOT / "runtimes/cpp/src"
FLAGS = BUILD / "CMakeFiles/mythos_objects.dir/flags.make"


@dataclass(frozen=True)
class Plant:
    """`old`, which stands once in a file below runtimes/cpp/src, is `new`."""

    file: str
    old: str
    new: str

    def source(self) -> str:
        text = (SOURCES / self.file).read_text()
        assert text.count(self.old) == 1, f"{self.file} has {self.old!r} {text.count(self.old)} times"
        return text.replace(self.old, self.new)


def planted(plant: Plant, target: str, folder: Path) -> Path:
    """A library or program of the build with a plant in it, in a folder."""
    source, made, result = folder / "planted.cpp", folder / "planted.o", folder / target
    source.write_text(plant.source())
    flags = dict(re.findall(r"^(CXX_\w+) = (.*)$", FLAGS.read_text(), re.MULTILINE))
    words = [word for name in ("CXX_DEFINES", "CXX_INCLUDES", "CXX_FLAGS") for word in shlex.split(flags[name])]
    fast = [word for word in words if word not in ("-O3", "-Wall", "-Wextra")] + ["-O1", "-w"]
    _run(["c++", *fast, "-c", str(source), "-o", str(made)])
    link = shlex.split((BUILD / f"CMakeFiles/{target}.dir/link.txt").read_text())
    link[link.index("-o") + 1] = str(result)
    link[link.index(f"CMakeFiles/mythos_objects.dir/src/{plant.file}.o")] = str(made)
    _run(link)
    return result


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=BUILD, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
