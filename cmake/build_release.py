"""Everything that a release has: distributions, what they are made of (CycloneDX), and the checksums of all of it.

    python cmake/build_release.py FOLDER [TOOLS]     # `make release`: into dist/

    FOLDER/mythos_runtime-*.whl, .tar.gz; mythos_export-*.whl, .tar.gz
    FOLDER/mythos_runtime.cdx.json      what installing the runtime with its usual extras brought here, and what is
                                        compiled into it
    FOLDER/mythos_export.cdx.json       what the exporter declares that it needs; PyTorch among it
    FOLDER/SHA256SUMS                   for `sha256sum -c`

Refused where CHANGELOG.md does not begin with the version and a day.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import build_wheels

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "runtimes/python/mythos_runtime/__init__.py"
CYCLONEDX = "cyclonedx-bom==7.5.0"
EXTRAS = "tokenizers,chat,serve"
# What is compiled into the wheel of mythos-runtime; the notices in it have the licences' texts.
COMPILED = (("nlohmann-json", "MIT"), ("CLI11", "BSD-3-Clause"), ("openssl", "Apache-2.0"))


def version() -> str:
    """The version of everything."""
    found = re.search(r'^__version__ = "(.+)"$', SOURCE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def check_changelog(wanted: str, text: str) -> None:
    """Exit where the changelog's first section is not of this version with a day."""
    first = re.search(r"^## (.+)$", text, re.MULTILINE)
    if first is None or not re.fullmatch(rf"{re.escape(wanted)} \(\d{{4}}-\d\d-\d\d\)", first[1]):
        said = "has no section" if first is None else f"begins with {first[1]!r}"
        sys.exit(f"CHANGELOG.md {said}; expected '{wanted} (YYYY-MM-DD)', as {SOURCE.name} says {wanted}")


def bill(tools: Path, wheel: Path, out: Path, *, installed: bool) -> Path:
    """A bill of materials beside a wheel: of what an environment with it holds, or of what it declares."""
    name = wheel.name.partition("-")[0]
    file = out / f"{name}.cdx.json"
    program = tools / "cyclonedx-py"
    if installed:
        place = out / ".environment"
        venv.create(place, with_pip=True, clear=True)
        build_wheels.run(place / "bin" / "pip", "install", "--quiet", f"{wheel}[{EXTRAS}]")
        build_wheels.run(program, "environment", "--output-reproducible", "-o", file, place / "bin" / "python")
        build_wheels.run("rm", "-r", place)
    else:
        wanted = out / ".requirements"
        wanted.write_text("\n".join(declared(wheel)) + "\n", encoding="utf-8")
        build_wheels.run(program, "requirements", "--output-reproducible", "-o", file, wanted)
        wanted.unlink()
    return file


def declared(wheel: Path) -> list[str]:
    """What a wheel needs without extras, as it says itself."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(member for member in archive.namelist() if member.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode("utf-8").partition("\n\n")[0].splitlines()
    needs = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [need for need in needs if "extra ==" not in need]


def add_compiled(file: Path) -> None:
    """What no package manager knows of: the libraries that are compiled in."""
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for name, licence in COMPILED:
        document["components"].append(
            {"type": "library", "name": name, "bom-ref": f"compiled-{name}", "licenses": [{"license": {"id": licence}}]}
        )
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def checksums(out: Path) -> Path:
    """SHA256SUMS of every file in the folder."""
    files = sorted(path for path in out.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    sums = out / "SHA256SUMS"
    sums.write_text("".join(lines), encoding="utf-8")
    return sums


def describe(tools: Path, out: Path) -> None:
    """Bills of materials and checksums into a folder with both wheels."""
    build_wheels.run(tools / "pip", "install", "--quiet", CYCLONEDX)
    (runtime,) = out.glob("mythos_runtime-*.whl")
    (exporter,) = out.glob("mythos_export-*.whl")
    add_compiled(bill(tools, runtime, out, installed=True))
    bill(tools, exporter, out, installed=False)
    checksums(out)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    check_changelog(version(), (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    if place.exists() and any(place.iterdir()):
        sys.exit(f"{place} is not empty; a release is built into an empty folder")
    try:
        found = build_wheels.tools(Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "build" / "wheel-tools")
        build_wheels.build(found, place)
        describe(found, place)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(map(str, error.cmd))} failed with exit code {error.returncode}")
    print("\n".join(sorted(str(path) for path in place.iterdir())))
