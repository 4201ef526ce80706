"""Blocks of more than four megabytes are mapped by themselves, whatever was freed before."""

import platform
import subprocess
import sys

import pytest

# A block of 16 MB that is freed raises glibc's own threshold to 16 MB; what follows would go into the heap.
SCRIPT = """
import ctypes
from mythos_runtime.cli.heap import return_large_blocks
if {ours}:
    assert return_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(16 << 20))
block = libc.malloc(6 << 20)
begins = [int(line.split("-")[0], 16) for line in open("/proc/self/maps") if "[heap]" in line]
ends = [int(line.split("-")[1].split()[0], 16) for line in open("/proc/self/maps") if "[heap]" in line]
print(any(begin <= block < end for begin, end in zip(begins, ends)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library here is not glibc")
@pytest.mark.parametrize("ours", [True, False])
def test_a_large_block_is_not_in_the_heap(ours: bool) -> None:
    said = subprocess.run([sys.executable, "-c", SCRIPT.format(ours=ours)], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(not ours)
