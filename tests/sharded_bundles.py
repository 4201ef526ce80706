"""Bundles whose experts are in shards, made of whole ones: what `--expert-shards` does after the whole is there."""

from __future__ import annotations

import shutil
from pathlib import Path

from mythos_export.package import Bundle
from mythos_export.shards.files import shard, stripped
from mythos_runtime.manifest import read_manifest


def split(whole: Path, folder: Path, shards: int) -> Path:
    """A copy of a bundle with its experts in so many shards."""
    shutil.copytree(whole, folder)
    manifest = read_manifest(folder, verify_hashes=False)
    entry, _ = shard(folder, manifest.spec, shards)
    changed = set(manifest.files) & {"enter.onnx", "leave.onnx"}  # they read the trunk's file now
    files = {name: each for name, each in manifest.files.items() if name not in changed}
    bundle = Bundle(folder, manifest, ())
    bundle.manifest.files.clear()
    bundle.manifest.files.update(files)
    stripped(bundle.grown(shards=entry)).finish()
    return folder
