"""What goes through the pipes between a worker and its keeper: a line of JSON, and behind it an .npz where one is."""

from __future__ import annotations

import io
import json
from typing import IO, Any

Message = dict[str, Any]


def send(stream: IO[bytes], message: Message) -> None:
    """Write a message; the arrays under its key "arrays" may be of any numpy type but objects."""
    arrays, body = message.pop("arrays", None), io.BytesIO()
    if arrays:
        import numpy as np  # a worker without arrays need not wait for it

        np.savez(body, allow_pickle=False, **arrays)
    stream.write(json.dumps([body.tell(), message]).encode() + b"\n")
    stream.write(body.getbuffer())
    stream.flush()


def receive(stream: IO[bytes]) -> Message | None:
    """The next message; None at the end of the stream, also where that comes in the middle of a message."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    size, message = json.loads(line)
    body = stream.read(size)
    if len(body) < size:
        return None
    if size:
        import numpy as np

        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            message["arrays"] = dict(arrays)
    found: Message = message
    return found
