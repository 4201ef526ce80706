# The ONNX Runtime library inside the Python wheel, as the target onnxruntime::onnxruntime.
#
#   find_package(OnnxRuntimeWheel REQUIRED)
#   target_link_libraries(app PRIVATE onnxruntime::onnxruntime)
#
# -DONNXRUNTIME_LIBRARY=<libonnxruntime.so...> names another library; Python3_EXECUTABLE chooses whose wheel is asked.
include(${CMAKE_CURRENT_LIST_DIR}/Headers.cmake)
mythos_headers(ONNXRUNTIME_INCLUDE_DIR onnxruntime_cxx_api.h libonnxruntime-dev onnxruntime onnxruntime/core/session)

set(ONNXRUNTIME_LIBRARY "" CACHE FILEPATH "libonnxruntime to link to; empty: the one in the Python wheel")
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

if(OnnxRuntimeWheel_FOUND AND NOT TARGET onnxruntime::onnxruntime)
  # The wheel ships libonnxruntime.so.1.x.y while its SONAME is libonnxruntime.so.1: the loader looks for that name.
  set(_link_dir ${CMAKE_BINARY_DIR}/onnxruntime-lib)
  file(MAKE_DIRECTORY ${_link_dir})
  file(CREATE_LINK ${OnnxRuntimeWheel_LIBRARY} ${_link_dir}/libonnxruntime.so.1 SYMBOLIC)
  add_library(onnxruntime::onnxruntime SHARED IMPORTED)
  set_target_properties(
    onnxruntime::onnxruntime PROPERTIES IMPORTED_LOCATION ${_link_dir}/libonnxruntime.so.1
                                        INTERFACE_INCLUDE_DIRECTORIES ${ONNXRUNTIME_INCLUDE_DIR})
endif()
