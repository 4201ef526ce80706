"""Errors of the kernel build. Each class carries the exit code that a command line should leave with."""

from __future__ import annotations


class KernelBuildError(Exception):
    """Base of everything that `triton_build` raises on purpose; itself: the compiler failed.

    `exit_code`: 1 a kernel is not good enough, 2 the request cannot be built, 3 the machine lacks triton or triton
    itself failed.
    """

    exit_code = 3


class KernelRequestError(KernelBuildError):
    """The precision, an architecture or a kernel's record asks for something that cannot be built."""

    exit_code = 2


class TritonMissingError(KernelBuildError):
    """No usable triton on this machine; the message names the package to install."""


class KernelResourceError(KernelBuildError):
    """A kernel spills registers, or needs more shared memory than a block of the architecture has."""

    exit_code = 1
