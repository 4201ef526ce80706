"""The engine as a model of Triton Inference Server's Python backend: decoupled, a response for every token.

What `mythos package triton-model-repository` writes imports this; only Triton's own process has `triton_python_backend_
utils`. Inputs, one of them: input_ids int64 [n], or text uint8 [n], UTF-8. Settings are the request's parameters, named
as fields of /v1/completions, or all of them in one parameter `settings`, a JSON object. Outputs of a response: text
uint8 [m], what has become certain; token_ids int64 [k]; depth int32 [k]; finished uint8 [1], see FINISHED.

Tensors cross by DLPack. A backend that was built against numpy 1 misreads the arrays of numpy 2: every element comes
out as the first, strings crash it. So nothing here is a tensor of strings, and no array is handed over as one.
"""

from __future__ import annotations

import ctypes
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as backend
from pydantic import ValidationError

from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.errors import RequestError
from mythos_runtime.manifest import read_manifest
from mythos_runtime.server.choice import Choice
from mythos_runtime.server.engine_loop import EngineLoop
from mythos_runtime.server.schemas import CompletionRequest
from mythos_runtime.server.served import Served
from mythos_runtime.server.settings import Settings
from mythos_runtime.server.tickets import Chosen, Event, Failed, Ticket
from mythos_runtime.session import Options

_log = logging.getLogger(__name__)

FINISHED = {None: 0, "stop": 1, "length": 2}
_USED = b"used_dltensor"
_rename = ctypes.pythonapi.PyCapsule_SetName
_rename.argtypes = [ctypes.py_object, ctypes.c_char_p]


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        given = {name: value["string_value"] for name, value in config["parameters"].items()}
        folder = Path(args["model_repository"]) / args["model_version"] / "bundle"
        manifest = read_manifest(folder)
        settings = Settings(
            name=args["model_name"],
            most_loops=int(given.get("most_loops") or manifest.spec.trained_loops),
            most_running=int(given["max_running"]),
            most_queued=int(given["max_queue"]),
        )
        threads = int(given["threads"]) if given.get("threads") else None
        options = Options(threads, provider="cpu")
        self._served = Served.open(
            folder, manifest, settings, engine=EngineOptions(memory=int(given["memory"])), options=options
        )
        most = settings.most_running + settings.most_queued
        self._loop = EngineLoop(self._served.take_engine(), self._served.reopen, _deliver, most)
        self._loop.start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Take requests in; their responses come from the engine's thread."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._submit(request, sender)
            except Exception as error:  # of this request; the others go on
                _fail(sender, str(error))

    def finalize(self) -> None:
        self._loop.close()

    def _submit(self, request: Any, sender: Any) -> None:
        served = self._served
        body = _body(request, served.settings.name)
        asked = served.asker.completion(body)
        if len(asked.requests) != 1:
            raise RequestError("a request is answered with one choice: n should be 1")
        answer = _Answer(Choice(0, served.words, body.stops), sender, self._loop)
        answer.ticket = Ticket(asked.requests[0], answer)
        self._loop.submit([answer.ticket])


class _Answer:
    """A request's events as responses, in the engine's thread."""

    ticket: Ticket

    def __init__(self, choice: Choice, sender: Any, loop: EngineLoop) -> None:
        self._choice, self._sender, self._loop = choice, sender, loop

    def __call__(self, event: Event) -> None:
        if self._choice.done:
            return  # its final response is sent, and nothing may follow
        if isinstance(event, Failed):
            self._choice.whole.finished = "stop"
            _fail(self._sender, str(event.error))
        elif isinstance(event, Chosen):
            self._send(event)

    def _send(self, event: Chosen) -> None:
        piece = self._choice.feed(event)
        tensors: dict[str, np.ndarray] = {
            "text": np.frombuffer(piece.text.encode(), np.uint8),
            "token_ids": np.array(piece.tokens, np.int64),
            "depth": np.array(piece.depth, np.int32),
            "finished": np.array([FINISHED[piece.finished]], np.uint8),
        }
        response = backend.InferenceResponse([_tensor(name, values) for name, values in tensors.items()])
        gone = self._sender.is_cancelled()
        if self._choice.done or gone:
            self._loop.cancel([self.ticket])  # at a stop text the engine does not know that it ended
            self._sender.send(response, flags=backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            self._choice.whole.finished = self._choice.whole.finished or "stop"
        else:
            self._sender.send(response)


def _deliver(batch: Sequence[tuple[Ticket, Event]]) -> None:
    for ticket, event in batch:
        try:
            ticket.receive(event)
        except Exception:  # of one client alone; the engine's thread goes on with the others
            _log.exception("a response could not be sent")


def _body(request: Any, name: str) -> CompletionRequest:
    """A request's tensors and parameters as a body of /v1/completions (RequestError)."""
    ids, text = (_input(request, each) for each in ("input_ids", "text"))
    if (ids is None) == (text is None):
        raise RequestError("give input_ids or text, one of them")
    parameters = json.loads(request.parameters() or "{}")
    settings = json.loads(parameters.pop("settings", "{}"))
    if not isinstance(settings, dict):
        raise RequestError("the parameter settings should be a JSON object")
    fields: dict[str, Any] = parameters | settings
    try:
        prompt = ids.tolist() if ids is not None else text.tobytes().decode() if text is not None else ""
        return CompletionRequest.model_validate({"model": name, **fields, "prompt": prompt})
    except UnicodeDecodeError as error:
        raise RequestError("the text is not UTF-8") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _input(request: Any, name: str) -> np.ndarray | None:
    tensor = backend.get_input_tensor_by_name(request, name)
    return None if tensor is None else np.from_dlpack(tensor).copy()


class _Lent:
    """An array that is handed over by DLPack.

    The backend renames the capsule that it has taken, but not to what the protocol says, and numpy complains on stderr
    when such a one is thrown away. So it gets the right name before.
    """

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self._capsule: Any = None

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._values.__dlpack_device__()

    def __dlpack__(self, **_: Any) -> Any:
        self._capsule = self._values.__dlpack__()
        return self._capsule

    def taken(self) -> None:
        """The backend has it."""
        _rename(self._capsule, _USED)


def _tensor(name: str, values: np.ndarray) -> Any:
    lent = _Lent(np.array(values))  # a writable one: numpy lends no other
    tensor = backend.Tensor.from_dlpack(name, lent)
    lent.taken()
    return tensor


def _fail(sender: Any, words: str) -> None:
    response = backend.InferenceResponse([], error=backend.TritonError(words))
    sender.send(response, flags=backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
