"""Checkpoints on the Hugging Face hub: `owner/name`, or `hf://owner/name@revision`."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from mythos_model.errors import CheckpointError

_REFERENCE = re.compile(r"(?:hf:/{1,2})?([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")  # a Path makes one slash of two
_BESIDE = ("*.json", "*.jinja", "*.txt", "*.model")  # configuration, index, tokenizer; never code
_WEIGHTS = (("*.safetensors",), ("*.bin",), ("*.pt", "*.pth"))  # the first of these that there is


class HubError(CheckpointError):
    """The hub cannot be reached from here, or the package that does it is missing."""

    exit_code = 3


def is_reference(text: str) -> bool:
    """Whether a CHECKPOINT names a model on the hub: it says so, or is of the form owner/name and nothing local is."""
    if text.startswith("hf:/"):
        return True
    local = os.path.lexists(text) or os.path.lexists(text.partition("/")[0])
    return (
        not local
        and bool(_REFERENCE.fullmatch(text))
        and not text.endswith((".pt", ".pth", ".bin", ".safetensors", ".json"))
    )


def fetch(reference: str) -> Path:
    """Download a model's configuration, tokenizer and weights, or find them in the hub's cache; the snapshot's folder.

    Raises:
        CheckpointError: the hub has no such model, or does not give it.
        HubError: no network, or no package for it.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise CheckpointError(
            f"{reference} names no model on the hub; expected hf://owner/name or hf://owner/name@revision"
        )
    name, revision = match.groups()
    try:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]
    except ImportError as error:
        raise HubError(
            f"there is no local {reference}; to download {name} from the hub: pip install 'mythos-export[hub]'"
        ) from error
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        # model_info asks once; a listing of files would be asked for again and again where there is no network.
        info = HfApi(endpoint=endpoint).model_info(name, revision=revision)
        files = [Path(file.rfilename) for file in info.siblings or ()]
        weights = next((kinds for kinds in _WEIGHTS if any(file.match(kind) for file in files for kind in kinds)), ())
        patterns = [*_BESIDE, *weights]
        return Path(snapshot_download(name, revision=revision, endpoint=endpoint, allow_patterns=patterns))
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 500
        if status < 500:
            raise CheckpointError(
                f"there is no local {reference}, and the hub does not give {name}{f'@{revision}' if revision else ''} "
                f"(status {status}); what is private or gated needs a token: hf auth login"
            ) from error
        reason = f"status {status}"
    except (HTTPError, OSError, ValueError) as error:  # no network, told to stay offline, a name that cannot be one
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    for weights in _WEIGHTS:  # what is cached is complete only for the files that were asked for
        patterns = [*_BESIDE, *weights]
        with contextlib.suppress(OSError, ValueError):
            cached = snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=patterns)
            if any(file for kind in weights for file in Path(cached).glob(kind)):
                return Path(cached)
    raise HubError(
        f"there is no local {reference}; the hub cannot be reached ({reason}), and its cache on this machine does not "
        f"hold {name}"
    )
