"""Fresh cases for a bundle, answered by the model of the checkpoint that it was made from."""

from __future__ import annotations

from pathlib import Path

from mythos_export.errors import CasesError
from mythos_export.precision import precision_of
from mythos_export.verify.golden import Golden, make_random
from mythos_model import Checkpoint, load_checkpoint
from mythos_runtime.manifest import Manifest


def fresh_cases(
    manifest: Manifest, checkpoint: Path, config: Path | None, count: int, seed: int, other_file: bool = False
) -> tuple[Golden, str | None]:
    """`count` random cases and the tolerances measured on them; and a sentence where the file is another than the
    bundle's source, as it may be with `other_file`.

    The configuration is `config`, else the checkpoint's, else the bundle's.

    Raises:
        CasesError: the checkpoint is another model, or another file, than the bundle's.
        ModelError: it cannot be read.
    """
    loaded = load_checkpoint(checkpoint, config, default=manifest.config)
    loaded = same_model(manifest, loaded, checkpoint, other_file)
    model = precision_of(manifest.precision, manifest.formats, manifest.spec.int8_cache).model(loaded)
    warning = None
    if _is_other_file(manifest, loaded.sha256):
        warning = (
            f"{checkpoint} is not the file that the bundle was made from ({manifest.source.name}, by its sha256): "
            "where a stage differs below, its weights may be others"
        )
    return make_random(model, manifest.precision, count, seed), warning


def same_model(manifest: Manifest, loaded: Checkpoint, checkpoint: Path, other_file: bool = False) -> Checkpoint:
    """The checkpoint that was read, if it has the configuration of the bundle's model and is the file that the bundle
    was made from: other weights would look like a broken bundle. With `other_file` it may be another one, since the
    hash is of files, and the same weights may be in others. Raises CasesError."""
    other = {name for name, value in loaded.config.to_dict().items() if manifest.config.get(name) != value}
    if other:
        name = min(other)
        raise CasesError(
            f"{checkpoint} is another model than the bundle: {name} is {loaded.config.to_dict()[name]}, in the bundle "
            f"{manifest.config.get(name)}; give the checkpoint that the bundle was made from"
        )
    if not other_file and _is_other_file(manifest, loaded.sha256):
        raise CasesError(
            f"{checkpoint} is not what the bundle was made from: its sha256 is {loaded.sha256}, that of "
            f"{manifest.source.name} was {manifest.source.sha256}; give that one, or, if the same weights are in this "
            "one, add --other-file"
        )
    return loaded


def _is_other_file(manifest: Manifest, sha256: str) -> bool:
    """Told by the hashes; not of a bundle whose weights came from no file."""
    return manifest.source.sha256 not in (None, sha256)
