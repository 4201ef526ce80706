"""Builds libmythos_tokenizer, with which the C++ runtime reads a tokenizer.json: `make tokenizer` runs this.

    python cmake/build_tokenizer.py              # into build/tokenizer; needs cargo
    python cmake/build_tokenizer.py --debian     # with the crates of Debian unstable, where crates.io is out of reach

The crate `tokenizers` and what it depends on come from crates.io. The second form makes a folder of crates:
`tokenizers` of the source distribution of the Python package, and the others of Debian's packages librust-*-dev, which
apt downloads and unpacks without installing anything (their build asks for libonig-dev and libclang-dev, which do have
to be installed). Debian's versions are newer than the crate asks for, so its requirements are loosened; the tests hold
what was built to the Python package.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "runtimes/tokenizer"
BUILD = ROOT / "build/tokenizer"
LIBRARY = BUILD / "libmythos_tokenizer.so"
NOTICES = "libmythos_tokenizer.notices.txt"
SOURCE_CRATE = "mythos_tokenizer"
_LICENCE = re.compile(r"(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)
_TAIL = 15


class NotBuiltError(Exception):
    """The machine lacks something; the message says what, and what to do."""


def build(debian: bool = False, folder: Path = BUILD) -> Path:
    """Compile into a folder; returns the library's path. Raises NotBuiltError."""
    if shutil.which("cargo") is None:
        raise NotBuiltError("there is no cargo: install Rust (apt-get install cargo, or rustup)")
    work = folder / "crate"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(SOURCE, work, ignore=shutil.ignore_patterns("target", "Cargo.lock"))
    options: tuple[object, ...] = ()
    if debian:
        DebianCrates(folder, work).gather()
        options = ("--offline",)
    command = ("cargo", "build", "--release", *options, "--target-dir", folder / "target", "--manifest-path")
    run(*command, work / "Cargo.toml", cwd=work)
    library = folder / LIBRARY.name
    shutil.copy2(folder / "target/release" / LIBRARY.name, library)
    (folder / NOTICES).write_text(notices(work, options))
    return library


def notices(work: Path, options: tuple[object, ...]) -> str:
    """The licences of everything that is linked, each text once."""
    asked = ("cargo", "metadata", "--format-version", "1", "--filter-platform", _host(), *options, "--manifest-path")
    packages = json.loads(run(*asked, work / "Cargo.toml", cwd=work).splitlines()[-1])["packages"]
    users: dict[str, list[str]] = {}
    for package in packages:
        if package["name"] == SOURCE_CRATE:
            continue
        folder = Path(package["manifest_path"]).parent
        files = [file for file in sorted(folder.iterdir()) if file.is_file() and _LICENCE.match(file.name)]
        # Debian keeps the texts in one file for each package.
        files = files or sorted(folder.parents[2].glob(f"doc/librust-{package['name'].replace('_', '-')}*/copyright"))
        text = "\n".join(file.read_text(encoding="utf-8", errors="replace").strip() for file in files)
        users.setdefault(text, []).append(f"{package['name']} {package['version']}, {package['license']}")
    parts = [f"{chr(10).join(sorted(names))}\n\n{text}".strip() for text, names in sorted(users.items())]
    head = "libmythos_tokenizer holds compiled parts of the following software."
    return f"\n\n{'-' * 80}\n\n".join([head, *parts]) + "\n"


def _host() -> str:
    found = re.search(r"^host: (\S+)$", run("rustc", "-vV"), re.MULTILINE)
    assert found is not None
    return found[1]


def run(*command: object, **options: object) -> str:
    """What a command printed; NotBuiltError with the end of that where it fails."""
    words = [str(word) for word in command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    result = subprocess.run(words, text=True, errors="replace", **pipes, **options)  # type: ignore[call-overload]
    if result.returncode:
        tail = "\n".join(result.stdout.strip().splitlines()[-_TAIL:])
        raise NotBuiltError(f"{' '.join(words)} failed with exit code {result.returncode}:\n{tail}")
    return str(result.stdout)


class DebianCrates:
    """A folder of crates for `cargo --offline`, and the crate in `work` pointed to it."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.folder, self.work = folder / "debian", work
        self.registry = self.folder / "root/usr/share/cargo/registry"

    def gather(self) -> None:
        """Download what is not there. Raises NotBuiltError."""
        self._apt_update()
        tokenizers = self._tokenizers()
        manifest = (self.work / "Cargo.toml").read_text()
        manifest = re.sub(r'tokenizers = \{ version = "[^"]*"', f'tokenizers = {{ path = "{tokenizers}"', manifest)
        (self.work / "Cargo.toml").write_text(manifest)
        (self.work / ".cargo").mkdir()
        (self.work / ".cargo/config.toml").write_text(
            f'[source.crates-io]\nreplace-with = "debian"\n[source.debian]\ndirectory = "{self.registry}"\n'
        )
        self.registry.mkdir(parents=True, exist_ok=True)
        for _ in range(200):  # cargo names one missing crate at a time
            try:
                run("cargo", "generate-lockfile", "--offline", cwd=self.work)
                return
            except NotBuiltError as error:
                self._download_missing(str(error))
        raise NotBuiltError("the crates depend on more and more others; is this the right archive?")

    def _download_missing(self, error: str) -> None:
        named = re.search(r"no matching package named `([^`]+)`|searched package name: `([^`]+)`", error)
        older = re.search(r'requirement `(\S+) = "[\^=~]?(\d+)\.?(\d*)', error)
        if named:
            return self._download((named[1] or named[2]).replace("_", "-"))
        if older:  # Debian keeps older versions under names of their own
            crate, series = older[1].replace("_", "-"), older[2] if older[2] != "0" else f"0.{older[3]}"
            try:
                return self._download(f"{crate}-{series}")
            except NotBuiltError:
                return self._download(crate)
        raise NotBuiltError(error)

    def _apt_update(self) -> None:
        for name in ("lists/partial", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        targets = run(
            "apt-get", "indextargets", "--format", "$(REPO_URI)|$(ORIGIN)|$(COMPONENT)", "Created-By: Packages"
        )
        mirrors = re.findall(r"^(\S+)\|Debian\|main$", targets, re.MULTILINE)
        if not mirrors:
            raise NotBuiltError("apt knows no mirror of Debian: apt-get update")
        for mirror in dict.fromkeys(mirrors):
            (self.folder / "sid.list").write_text(f"deb {mirror} sid main\n")
            try:
                return self._apt("update")
            except NotBuiltError as error:
                last = error
        raise last

    def _apt(self, *words: str) -> None:
        place = self.folder
        options = {
            "Dir::Etc::sourcelist": place / "sid.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::Lists": place / "lists",
            "Dir::Cache": place / "cache",
            "APT::Sandbox::User": "root",
        }
        run("apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items()), *words, cwd=place)

    def _download(self, crate: str) -> None:
        self._apt("download", f"librust-{crate}-dev")
        (package,) = self.folder.glob(f"librust-{crate}-dev_*.deb")
        run("dpkg", "-x", package, self.folder / "root")

    def _tokenizers(self) -> Path:
        """The crate in the source distribution of the Python package, whatever builds that."""
        place = self.folder / "python"
        crate = place / "tokenizers-source/tokenizers"
        if crate.is_dir():
            return crate
        stub = place / "stub"
        stub.mkdir(parents=True, exist_ok=True)
        # pip wants a package's metadata before it keeps its source; the real backend asks crates.io for that.
        (stub / "maturin.py").write_text(_STUB)
        from importlib.metadata import version

        wanted = f"tokenizers=={version('tokenizers')}"
        options = ("--no-deps", "--no-build-isolation", "--no-binary", "tokenizers", "-d", place)
        variables = os.environ | {"PYTHONPATH": str(stub)}
        run(sys.executable, "-m", "pip", "download", "--quiet", *options, wanted, env=variables)
        (archive,) = place.glob("tokenizers-*.tar.gz")
        shutil.unpack_archive(archive, place, filter="data")
        (place / archive.name.removesuffix(".tar.gz")).rename(place / "tokenizers-source")
        loosen(crate)
        return crate


def loosen(crate: Path) -> None:
    """Make the crate build with Debian's versions, and without what only its own tests and downloads need."""
    manifest = crate / "Cargo.toml"
    text = manifest.read_text()
    text = re.sub(r"^\[(dev-dependencies|\[bench\])\]\n.*?(?=^\[|\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(hf-hub|indicatif|fancy-regex) = (\{.*?\}|\S+)\n", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(http|rustls-tls|unstable_wasm) = .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^progressbar = .*", "progressbar = []", text, flags=re.MULTILINE)
    for name in ("rand", "getrandom", "monostate", "compact_str"):
        text = re.sub(rf'^({name} = (?:\{{ version = )?)"[^"]*"', r'\1"*"', text, flags=re.MULTILINE)
    manifest.write_text(text)
    word = crate / "src/models/bpe/word.rs"
    word.write_text(word.read_text().replace("use rand::{rng, Rng};", "use rand::{rng, RngExt};"))  # rand 0.10


_STUB = """
import pathlib

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    made = pathlib.Path(folder) / "tokenizers-0.dist-info"
    made.mkdir()
    version = next(line for line in open("PKG-INFO") if line.startswith("Version:"))
    (made / "METADATA").write_text("Metadata-Version: 2.1\\nName: tokenizers\\n" + version)
    return made.name

def get_requires_for_build_wheel(config_settings=None):
    return []
"""


if __name__ == "__main__":
    try:
        print(f"built {build(debian='--debian' in sys.argv[1:])}")
    except NotBuiltError as error:
        print(f"the tokenizer's library was not built: {error}", file=sys.stderr)
        sys.exit(3)
