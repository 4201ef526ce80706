"""Errors of the model package: each carries the exit code that a command line should leave with."""

from __future__ import annotations


class ModelError(Exception):
    """Base of everything that `mythos_model` raises about a user's input.

    `exit_code` follows the project's convention: 1 the result is wrong, 2 the request or the input is wrong,
    3 this machine lacks something needed.
    """

    exit_code = 2


class ConfigError(ModelError):
    """A model configuration is incomplete, inconsistent or not a configuration at all."""


class CheckpointError(ModelError):
    """A checkpoint cannot be read, or does not hold the tensors that its configuration promises."""
