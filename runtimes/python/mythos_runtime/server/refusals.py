"""Errors in the protocol's form: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mythos_runtime.errors import CapacityError, RequestError, Unavailable
from mythos_runtime.fields import shown
from mythos_runtime.server.schemas import UNIONS, UNSUPPORTED, ErrorBody, ErrorDetail, TokenizeChat, TokenizeText
from mythos_runtime.server.tickets import Closed, Overloaded

log = logging.getLogger("mythos_runtime.server")

INVALID, SERVER = "invalid_request_error", "server_error"
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "not_found", 413: "request_too_large", 429: "queue_full", 504: "timeout"}


class Refusal(HTTPException):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.param = param
        self.code = code or _CODES.get(status)
        self.type = _TYPES.get(status, INVALID if status < 500 else SERVER)

    def body(self) -> ErrorBody:
        return ErrorBody(error=ErrorDetail(message=self.detail, type=self.type, param=self.param, code=self.code))

    def response(self) -> JSONResponse:
        return JSONResponse(self.body().model_dump(), self.status_code, self.headers)


def refusal_of(error: Exception) -> Refusal:
    """How an error of the engine, the queue or the clock is answered. What is nobody's fault is logged."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Overloaded):
        return Refusal(429, str(error), headers={"Retry-After": str(error.seconds)})
    if isinstance(error, Unavailable):
        return Refusal(503, str(error), code="unavailable", headers={"Retry-After": str(error.seconds)})
    if isinstance(error, Closed):
        return Refusal(503, str(error), code="stopped", headers={"Retry-After": "5"})
    if isinstance(error, CapacityError):
        return Refusal(400, str(error), code="context_length_exceeded")
    if isinstance(error, RequestError):
        return Refusal(400, str(error))
    if isinstance(error, TimeoutError):
        return Refusal(504, "the request took longer than this server allows")
    log.error("a request failed: %s", error, exc_info=error)
    return Refusal(500, f"the request failed: {type(error).__name__}: {error}")


def install(app: FastAPI) -> None:
    """Answer every error of an app in the protocol's form."""

    async def known(_: Request, error: Exception) -> JSONResponse:
        return refusal_of(error).response()

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return Refusal(error.status_code, str(error.detail), headers=error.headers).response()

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return _invalid(_told(error)).response()

    app.add_exception_handler(Refusal, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, known)


def _told(error: RequestValidationError) -> Mapping[str, Any]:
    """The first thing that is wrong; of a body that may be one of two, with the one that was meant."""
    errors: list[Mapping[str, Any]] = list(error.errors())
    meant = TokenizeChat if isinstance(error.body, dict) and "messages" in error.body else TokenizeText
    return next((each for each in errors if meant.__name__ in each["loc"][1:-1]), errors[0])


def _invalid(error: Mapping[str, Any]) -> Refusal:
    """What is wrong with a request, in words that hold nothing unprintable."""
    place = [part for part in error["loc"] if part != "body"]
    of_two = False
    if len(place) > 1 and place[0] in (TokenizeText.__name__, TokenizeChat.__name__):
        place, of_two = place[1:], True  # a class, which no client knows
    if not place and error["type"] != "json_invalid":
        found = "nothing" if error["type"] == "missing" else "null" if error["input"] is None else shown(error["input"])
        header = ", with the header Content-Type: application/json" if isinstance(error["input"], bytes) else ""
        return Refusal(400, f"the body should be a JSON object{header}; found {found}", code="invalid_value")
    param = ".".join(shown(part)[1:-1] if isinstance(part, str) else str(part) for part in place) or None
    name = str(place[0]) if place else ""
    if error["type"] == "json_invalid":
        return Refusal(400, f"the body is not valid JSON: {error.get('ctx', {}).get('error', '')}", code="invalid_json")
    if error["type"] == "extra_forbidden":
        return Refusal(400, f"Unrecognized request argument supplied: {param}", param=param, code="unknown_parameter")
    if name in UNSUPPORTED:
        return Refusal(
            400, f"{name} is not supported by this server, other than {UNSUPPORTED[name]}", param=param,
            code="unsupported_parameter",
        )  # fmt: skip
    if error["type"] == "missing":
        expected = f"; it should be {UNIONS[name]}" if name in UNIONS and not of_two else ""
        if of_two and param == "prompt":
            expected = "; give that, a text, or messages"
        return Refusal(400, f"{param} is missing{expected}", param=param, code="invalid_value")
    if name in UNIONS and not of_two:
        expected = f"{name} should be {UNIONS[name]}, found {shown(error['input'])}"
        return Refusal(400, expected, param=name, code="invalid_value")
    return Refusal(400, f"{param}: {error['msg']}, found {shown(error['input'])}", param=param, code="invalid_value")
