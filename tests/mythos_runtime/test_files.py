"""Where a bundle's files may be, and how they are held to the manifest."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from cpp_programs import RUN, cpp
from golden_bundles import Bundles

from mythos_runtime import BundleError, load
from mythos_runtime.cli import mythos
from mythos_runtime.manifest import SPARE, read_manifest


def in_a_cache(bundle: Path, cache: Path) -> Path:
    """The bundle as the hub's cache holds what it downloaded: every file a link to a blob."""
    blobs, snapshot = cache / "models--owner--name" / "blobs", cache / "models--owner--name" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in bundle.rglob("*") if path.is_file())):
        link = snapshot / file.relative_to(bundle)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blobs / str(number))
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    return snapshot


def test_a_bundle_in_the_hub_s_cache_is_one_and_a_link_out_of_the_cache_is_refused(
    bundles: Bundles, tmp_path: Path
) -> None:
    bundle = bundles["mla_decode"]
    snapshot = in_a_cache(bundle, tmp_path)
    ids = np.arange(6)[None]
    assert np.array_equal(load(snapshot).forward(ids).logits, load(bundle).forward(ids).logits)
    arguments = ["--ids", "1,2,3", "--max-new-tokens", "5"]
    if RUN.is_file():
        there, here = (cpp(RUN, folder, *arguments) for folder in (snapshot, bundle))
        assert (there.returncode, there.stdout) == (0, here.stdout), there.stderr
    for name in ("weights.safetensors", "manifest.json"):
        kept = os.readlink(snapshot / name)
        (snapshot / name).unlink()
        (snapshot / name).symlink_to(bundle / name)
        with pytest.raises(BundleError, match=f"{name} is a link that leaves the bundle") as refused:
            load(snapshot)
        if RUN.is_file():
            result = cpp(RUN, snapshot, *arguments)
            assert (result.returncode, result.stderr) == (2, f"error: {refused.value}\n")
        (snapshot / name).unlink()
        (snapshot / name).symlink_to(kept)
    other = tmp_path / "models--owner--other" / "blobs"
    other.mkdir(parents=True)
    shutil.copy(bundle / "model.onnx", other)
    (snapshot / "model.onnx").unlink()
    (snapshot / "model.onnx").symlink_to(other / "model.onnx")  # of another model
    with pytest.raises(BundleError, match=r"model\.onnx is a link that leaves the bundle"):
        load(snapshot)


def test_what_is_not_needed_to_run_may_be_missing(bundles: Bundles, tmp_path: Path) -> None:
    """And nothing else; what is there is held to its entry."""
    whole, folder = bundles["mla_decode"], tmp_path / "bundle"
    shutil.copytree(whole, folder)
    listed = read_manifest(folder).files
    spare = {name for name in listed if name in SPARE or name.startswith("reports/")}
    assert spare > {"golden.safetensors", "model.pt2", "card.md", "reports/parity.html"}
    for name in sorted(spare):
        (folder / name).unlink()
    manifest = read_manifest(folder)
    assert set(manifest.missing) == spare and manifest.files.keys() == listed.keys() - spare
    assert np.array_equal(load(folder).forward([[1, 2]]).logits, load(whole).forward([[1, 2]]).logits)
    shown = CliRunner().invoke(mythos, ["inspect", str(folder)])
    assert shown.exit_code == 0 and "these are missing, without which it runs: card.md, golden" in shown.stdout
    with pytest.raises(BundleError, match=r"runs model\.pt2, which is missing from"):
        load(folder, backend="eager")
    for name in sorted(listed.keys() - spare):
        (folder / name).rename(tmp_path / "away")
        with pytest.raises(BundleError, match=f"{re.escape(name)} is missing"):
            read_manifest(folder, verify_hashes=False)
        (tmp_path / "away").rename(folder / name)
    (folder / "golden.safetensors").symlink_to(whole / "golden.safetensors")
    with pytest.raises(BundleError, match="is a link that leaves the bundle"):
        read_manifest(folder)


def test_sizes_alone_are_compared_where_asked(bundles: Bundles, tmp_path: Path) -> None:
    """A golden file of the right size, which running does not read."""
    folder = tmp_path / "bundle"
    shutil.copytree(bundles["mla_decode"], folder)
    data = bytearray((folder / "golden.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "golden.safetensors").write_bytes(data)

    def code(*options: str) -> int:
        arguments = ["run", str(folder), "--ids", "1", "--max-new-tokens", "1", *options]
        return CliRunner().invoke(mythos, arguments).exit_code

    assert (code(), code("--verify", "sizes")) == (2, 0)
    with pytest.raises(BundleError, match="its SHA-256 differs"):
        load(folder)
    assert load(folder, verify="sizes").forward([[1, 2]]).logits.shape[:2] == (1, 2)
    (folder / "golden.safetensors").write_bytes(data[:-1])
    assert code("--verify", "sizes") == 2
