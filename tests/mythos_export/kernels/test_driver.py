"""The calls of the CUDA driver, made to a stand-in with the driver's C signatures: what arrives is what was meant."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mythos_export.kernels.cuda.driver import CudaDriver, Launch

# Signatures as in cuda.h of CUDA 12 and 13. CUresult 0 is success; CUdeviceptr is 64 bits wide.
STAND_IN = r"""
#include <stdint.h>
#include <stdio.h>
#include <string.h>
static char seen[400];
const char* last_launch(void) { return seen; }
int cuCtxGetDevice(int* device) { *device = 3; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  if (device != 3) return 101;
  *value = attribute == 75 ? 8 : attribute == 76 ? 6 : -1;
  return 0;
}
int cuModuleLoadData(void** module, const void* image) {
  if (memcmp(image, "\177ELF\0 all of it", 16)) return 200;
  *module = (void*)0x7000000000000011;
  return 0;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  if (module != (void*)0x7000000000000011 || strcmp(name, "entry")) return 500;
  *function = (void*)0x7000000000000012;
  return 0;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
  return function == (void*)0x7000000000000012 && attribute == 8 && value == 70000 ? 0 : 1;
}
int cuGetErrorString(int error, const char** text) { *text = "an error of the stand-in"; return 0; }
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** parameters, void** extra) {
  snprintf(seen, sizeof seen, "%p (%u %u %u) (%u %u %u) %u %p %llx %d %lld %g %llx %d",
           function, gx, gy, gz, bx, by, bz, shared, stream,
           *(unsigned long long*)parameters[0], *(int32_t*)parameters[1], *(long long*)parameters[2],
           *(float*)parameters[3], *(unsigned long long*)parameters[4], extra == 0);
  return 0;
}
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    source, made = tmp_path / "cuda.c", tmp_path / "libcuda.so.1"
    source.write_text(STAND_IN)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, source], check=True)
    loaded = ctypes.CDLL(str(made))

    def open_library(name: str) -> ctypes.CDLL:
        assert name == "libcuda.so.1"
        return loaded

    monkeypatch.setattr(ctypes, "CDLL", open_library)
    return loaded


def test_a_launch_arrives_as_it_was_meant(library: Any) -> None:
    driver = CudaDriver()
    assert driver.capability() == 86
    function = driver.function(b"\x7fELF\0 all of it", "entry", 70000)
    address = 0x7F012A05F200
    arguments = [
        ctypes.c_uint64(address),
        ctypes.c_int32(-5),
        ctypes.c_int64(1 << 40),
        ctypes.c_float(0.125),
        ctypes.c_uint64(0),
    ]
    driver.launch(Launch(function, (70000, 8, 2), 128, 70000, arguments), 0x7000000000000077)
    library.last_launch.restype = ctypes.c_char_p
    assert library.last_launch().decode() == (
        f"0x7000000000000012 (70000 8 2) (128 1 1) 70000 0x7000000000000077 {address:x} -5 {1 << 40} 0.125 0 1"
    )


def test_an_error_says_which_call_failed(library: Any) -> None:
    driver = CudaDriver()
    with pytest.raises(RuntimeError, match=r"cuModuleLoadData failed: an error of the stand-in \(200\)"):
        driver.function(b"not a cubin, and long enough", "entry", 0)


def test_without_a_driver_it_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    with pytest.raises(RuntimeError, match="this needs an NVIDIA GPU with its driver"):
        CudaDriver()
