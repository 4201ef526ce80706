"""Fresh cases for a bundle, answered by the model of the checkpoint that it was made from."""

from __future__ import annotations

from pathlib import Path

from mythos_export.errors import CasesError
from mythos_export.precision import precision_of
from mythos_export.verify.golden import Golden, make_random
from mythos_model import Checkpoint, load_checkpoint
from mythos_runtime.manifest import Manifest


def fresh_cases(
    manifest: Manifest, checkpoint: Path, config: Path | None, count: int, seed: int
) -> tuple[Golden, str | None]:
    """`count` random cases and the tolerances measured on them; and a sentence where the file is another than the
    bundle's source, which by its hash it may be with the same weights in it.

    The configuration is `config`, else the checkpoint's, else the bundle's.

    Raises:
        CasesError: the checkpoint is another model than the bundle's.
        ModelError: it cannot be read.
    """
    loaded = same_model(manifest, load_checkpoint(checkpoint, config, default=manifest.config), checkpoint)
    model = precision_of(manifest.precision, manifest.formats, manifest.spec.int8_cache).model(loaded)
    return make_random(model, manifest.precision, count, seed), _other_file(manifest, checkpoint, loaded.sha256)


def same_model(manifest: Manifest, loaded: Checkpoint, checkpoint: Path) -> Checkpoint:
    """The checkpoint that was read, if it has the configuration of the bundle's model. Raises CasesError."""
    other = {name for name, value in loaded.config.to_dict().items() if manifest.config.get(name) != value}
    if other:
        name = min(other)
        raise CasesError(
            f"{checkpoint} is another model than the bundle: {name} is {loaded.config.to_dict()[name]}, in the bundle "
            f"{manifest.config.get(name)}; give the checkpoint that the bundle was made from"
        )
    return loaded


def _other_file(manifest: Manifest, checkpoint: Path, sha256: str | None) -> str | None:
    source = manifest.source
    if sha256 is None or source.sha256 in (None, sha256):
        return None
    return (
        f"{checkpoint} is not the file that the bundle was made from ({source.name}, by its sha256): where a stage "
        "differs below, its weights may be others"
    )
