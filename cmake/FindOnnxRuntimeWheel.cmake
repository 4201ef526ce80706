# OnnxRuntimeWheel_LIBRARY: the ONNX Runtime library inside the Python wheel, which programs open when they run.
#
# -DONNXRUNTIME_LIBRARY=<libonnxruntime.so...> names another library; Python3_EXECUTABLE chooses whose wheel is asked.
set(ONNXRUNTIME_LIBRARY "" CACHE FILEPATH "libonnxruntime that programs open; empty: the one in the Python wheel")
set(OnnxRuntimeWheel_LIBRARY "${ONNXRUNTIME_LIBRARY}")
if(NOT OnnxRuntimeWheel_LIBRARY)
  find_package(Python3 COMPONENTS Interpreter)
  if(Python3_FOUND)
    # find_spec instead of import: the package need not be importable (a missing driver, say) to hold the library.
    execute_process(
      COMMAND ${Python3_EXECUTABLE} -c "import importlib.util as u, pathlib, sys
spec = u.find_spec('onnxruntime')
found = sorted((pathlib.Path(spec.origin).parent / 'capi').glob('libonnxruntime.so.*')) if spec else []
sys.stdout.write(str(found[-1]) if found else '')"
      OUTPUT_VARIABLE OnnxRuntimeWheel_LIBRARY OUTPUT_STRIP_TRAILING_WHITESPACE)
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  OnnxRuntimeWheel
  REQUIRED_VARS OnnxRuntimeWheel_LIBRARY
  REASON_FAILURE_MESSAGE
    "install the Python package onnxruntime for ${Python3_EXECUTABLE} or give -DONNXRUNTIME_LIBRARY=<libonnxruntime.so>")
