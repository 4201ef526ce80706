"""`--weights link`: a bundle's weights stay where they are, in the user's own checkpoint.

    links = find_links(model, checkpoint)   # which of the model's tensors are in its files as they are computed with
    tensors = map_links(folder, links)      # as both runtimes do: the model is on top of what they will map
    links = relative(links, output)         # in the manifest of a bundle that is to lie beside the files

What the model has in another form than the files (cast, or put together along another axis than the first) goes into
the bundle's weights.safetensors, as everything does otherwise.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mythos_export.errors import LowerError, PackageError
from mythos_export.references import Compositions, Place, places_of
from mythos_export.weights_file import INLINE_BYTES
from mythos_model import Checkpoint, LoopedModel
from mythos_runtime.linked import LinkedFile, LinkedTensor, Links, Stretch, open_links, trust

LEAST = 0.5  # of the weights: where fewer can be linked, it is not what was asked for


def find_links(model: LoopedModel, checkpoint: Checkpoint) -> Links:
    """The links of a checkpoint's model, by absolute paths.

    Raises:
        PackageError: most of the weights are not in the files as they are computed with.
    """
    places = places_of(checkpoint.state)
    compositions = Compositions(checkpoint.family, checkpoint.config, places)
    numbers: dict[Path, int] = {}
    tensors, reasons, whole = {}, dict[str, int](), 0
    for name, tensor in model.state_dict().items():
        if tensor.nbytes <= INLINE_BYTES:
            continue
        whole += tensor.nbytes
        found = _tensor(name, tensor, compositions, places, numbers)
        if isinstance(found, LinkedTensor):
            tensors[name] = found
        else:
            reasons[found] = reasons.get(found, 0) + tensor.nbytes
    linked = sum(tensor.bytes for tensor in tensors.values())
    if linked < LEAST * whole:
        reason = max(reasons, key=lambda each: reasons[each])
        raise PackageError(
            f"--weights link: {linked / 1e9:.2f} of {whole / 1e9:.2f} GB of the weights can be used where they are "
            f"({reason}); use --weights copy"
        )
    digests = {path.resolve(): digest for path, digest in checkpoint.digests.items()}
    for path in numbers:
        trust(path, digests[path])
    files = (LinkedFile(str(path), digests[path], path.stat().st_size) for path in numbers)
    return Links(tuple(files), tensors)


def map_links(folder: Path, links: Links) -> dict[str, torch.Tensor]:
    """The tensors, as every runtime maps them. Nobody may write to them."""
    return {name: torch.from_numpy(array) for name, array in open_links(folder, links).items()}


def absolute(links: Links, folder: Path) -> Links:
    """The same links from anywhere."""
    files = (replace(file, path=str((folder / file.path).resolve())) for file in links.files)
    return replace(links, files=tuple(files))


def relative(links: Links, output: Path) -> Links:
    """The links of a bundle: relative to it where a file is in the folder that the bundle is in, or below, so that both
    can be moved together; absolute else."""
    bundle = output.resolve()

    def named(path: Path) -> str:
        return os.path.relpath(path, bundle) if path.is_relative_to(bundle.parent) else str(path)

    return replace(links, files=tuple(replace(file, path=named(Path(file.path))) for file in links.files))


def _tensor(
    name: str, tensor: torch.Tensor, compositions: Compositions, places: dict[str, Place], numbers: dict[Path, int]
) -> LinkedTensor | str:
    """Where a tensor of the model is; or why it is nowhere as it is."""
    try:
        composition = compositions[name]
    except LowerError:
        return "the family makes them anew on the way in"
    pieces = [places.get(each) for each in composition.names]
    if len(pieces) > 1 and composition.axis:
        return "they are put together along another axis than the first"
    stretches = []
    for piece in pieces:
        if piece is None:
            return "they are not whole and in order in the files"
        if piece.dtype != tensor.dtype:
            stored, computed = (str(dtype).removeprefix("torch.") for dtype in (piece.dtype, tensor.dtype))
            return f"they are stored as {stored} and computed with as {computed}"
        stretches.append(Stretch(numbers.setdefault(piece.file, len(numbers)), piece.start, piece.bytes))
    dtype = str(tensor.dtype).removeprefix("torch.")
    found = LinkedTensor(dtype, tuple(tensor.shape), tuple(stretches))
    if sum(stretch.bytes for stretch in stretches) != tensor.nbytes:
        return "the family makes them anew on the way in"
    if any(stretch.start % np.dtype(dtype).itemsize for stretch in stretches):
        return "they do not begin at a multiple of their elements' size"
    return found if found.mappable else "they are in files whose bytes are not aligned alike"
