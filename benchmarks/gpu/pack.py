"""What a GPU machine without a network lacks, into build/gpu: `python -m benchmarks.gpu.pack`.

    site/       the packages' dist-info: their entry points, without which PyTorch finds no kernels and silently stays
                plain; `make setup` installs from a registry, which is out of reach there
    kernels/    TensorRT's plug-ins and what calls them, and the operators for ONNX Runtime's CUDA provider, where
                `make native` has built them: libraries of this machine. A runtime that lacks them is given them
    bundles/    small exported models: the parts that run bundles need no exporter there (--site-only leaves them out)
    project/    with --project: the files of this repository that the parts need, for a machine without a checkout

With a checkout there: copy build/gpu into it and run `make bench-gpu`, `make test-gpu`. Without: copy build/gpu, and
inside of project/ run `python3 -m benchmarks.gpu --out FOLDER --bundles ../bundles`.

Where the bundles are there already, as on that machine, this needs nothing but Python, and so does --site-only. The
parts need PyTorch, Triton, NumPy, safetensors, ONNX with onnxscript, and ONNX Runtime; those that draw cases, pytest
and hypothesis; the tests, filelock, click and rich, too.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "gpu"
NATIVE = ("libmythos_tensorrt_plugins.so", "plugin_caller.so", "libmythos_cuda_ops.so")
_RUNTIME = tuple(name for name in NATIVE if name.startswith("lib"))
_RUNTIME_FOLDER = Path("runtimes", "python", "mythos_runtime", "native")
BUNDLES = ("mla_decode", "gqa_prefill", "mla_decode, fp32, int8", "gqa_prefill, fp32, int8")
"""As `golden_bundles` names them: two models, with float caches and with int8 ones."""
_VERSION = ROOT / "runtimes" / "python" / "mythos_runtime" / "__init__.py"
_PROJECTS = (ROOT / "pyproject.toml", ROOT / "runtimes" / "python" / "pyproject.toml")
_CARRIED = (
    *("mythos_model", "mythos_export", "benchmarks", "runtimes/python", "pyproject.toml", "Makefile", "tests/gpu"),
    *("tests/conftest.py", "tests/engines.py", "tests/golden_bundles.py", "tests/family_bundles.py"),
    "tests/mythos_export/kernels",
    *(
        "tests/mythos_runtime/device_loop",
        "tests/mythos_model/families",
        "tests/golden/mla_decode",
        "tests/golden/mla_prefill",
    ),
    *("tests/golden/gqa_prefill", "tests/golden/mla_deeper_than_trained"),
)
_LEFT = (".safetensors", ".html", ".json", ".svg")  # of these folders: no trained weights, no committed results
_LEFT_FOLDERS = ("mythos_model/pretrained/", "benchmarks/results/")


def dist_info(project: dict[str, Any], site: Path) -> Path:
    """Write a distribution's METADATA and entry points, as its pyproject.toml says them. Returns the folder."""
    name, version = project["name"], _version()
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    groups = dict(project.get("entry-points", {}))
    if "scripts" in project:
        groups["console_scripts"] = project["scripts"]
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()), ""]
    (folder / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def _version() -> str:
    """Of both packages, from the one place that has it, which need not be importable here."""
    found = re.search(r'^__version__ = "(.+)"$', _VERSION.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def site(folder: Path) -> list[Path]:
    """The dist-infos of both packages."""
    shutil.rmtree(folder, ignore_errors=True)
    return [dist_info(tomllib.loads(path.read_text(encoding="utf-8"))["project"], folder) for path in _PROJECTS]


def kernels(folder: Path) -> list[Path]:
    """What the parts `plugins` and `rows_onnx` call, as far as it is built."""
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(path, folder)) for name in NATIVE if (path := ROOT / "build" / "kernels" / name).exists()]


def give_runtime(carried: Path, root: Path) -> list[Path]:
    """Copy what was carried to where the runtime of a repository looks for it, as far as it has nothing there."""
    native = root / _RUNTIME_FOLDER
    lacking = [carried / name for name in _RUNTIME if (carried / name).exists() and not (native / name).exists()]
    if lacking:
        native.mkdir(exist_ok=True)
    return [Path(shutil.copy(path, native)) for path in lacking]


def bundles(folder: Path) -> list[Path]:
    """Golden models, exported where they are not there yet."""
    there = [folder / name for name in BUNDLES if (folder / name / "manifest.json").exists()]
    if len(there) == len(BUNDLES):
        return there
    import sys

    sys.path.insert(0, str(ROOT / "tests"))
    from golden_bundles import Bundles

    folder.mkdir(parents=True, exist_ok=True)
    made = Bundles(folder)
    found = [made[name] for name in BUNDLES]
    for lock in folder.glob("*.lock"):
        lock.unlink()
    return found


def project(folder: Path) -> list[Path]:
    """Copy the tracked files that the parts need. Raises CalledProcessError outside of a checkout."""
    listed = subprocess.run(["git", "ls-files", "-z", *_CARRIED], cwd=ROOT, capture_output=True, check=True)
    shutil.rmtree(folder, ignore_errors=True)
    copied = []
    for name in listed.stdout.decode().split("\0"):
        left = name.startswith(_LEFT_FOLDERS) and name.endswith(_LEFT)
        if name and not left:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copied.append(Path(shutil.copy(ROOT / name, target)))
    return copied


def main() -> None:
    """Make them, and say how much there is to carry."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.pack", description=__doc__)
    parser.add_argument("--out", type=Path, default=BUILD)
    parser.add_argument("--site-only", action="store_true", help="only the dist-infos")
    parser.add_argument("--project", action="store_true", help="the files of this repository, too")
    arguments = parser.parse_args()
    made = [arguments.out / "site"]
    site(made[0])
    give_runtime(arguments.out / "kernels", ROOT)
    if not arguments.site_only:
        made += [arguments.out / "kernels", arguments.out / "bundles"]
        kernels(made[-2])
        bundles(made[-1])
    if arguments.project:
        made.append(arguments.out / "project")
        project(made[-1])
        site(made[-1] / "build" / "gpu" / "site")
        carried = made[-1] / "build" / "gpu" / "kernels"
        kernels(carried)
        give_runtime(carried, made[-1])
    lacking = [name for name in NATIVE if not (arguments.out / "kernels" / name).exists()]
    if lacking and not arguments.site_only:
        print(f"not built, and so not carried: {', '.join(lacking)}; make native builds them")
    for folder in made:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{size / 1e6:6.1f} MB  {folder}")


if __name__ == "__main__":
    main()
