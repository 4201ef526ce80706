# Finds the C++ headers of ONNX Runtime, which its Python wheels do not ship.
#
#   include(FetchOnnxRuntimeHeaders)
#   mythos_onnxruntime_headers(include_dir)   # the folder with onnxruntime_cxx_api.h, or an error that says what to do
#
# In this order:
#   1. -DONNXRUNTIME_INCLUDE_DIR=<folder>, or the environment variable of that name;
#   2. the system's header folders (a distribution's libonnxruntime-dev, or a release unpacked under a CMake prefix);
#   3. on Debian and its relatives: the package libonnxruntime-dev, downloaded with the machine's own apt mirrors and
#      keys and unpacked into the build folder. Nothing is installed and the machine's apt lists stay as they are.
#      -DMYTHOS_FETCH_HEADERS=OFF forbids it.
#
# Headers may be older than the library that loads the code (its API is versioned), never newer.

option(MYTHOS_FETCH_HEADERS "Download libonnxruntime-dev with apt where no ONNX Runtime header is found" ON)
set(ONNXRUNTIME_INCLUDE_DIR "$ENV{ONNXRUNTIME_INCLUDE_DIR}" CACHE PATH "Folder with onnxruntime_cxx_api.h")

# Runs apt-get against a private state folder, so that neither root nor the machine's package lists are touched.
function(_mythos_apt work list_file result_var)
  execute_process(
    COMMAND apt-get -q -o Dir::Etc::sourcelist=${list_file} -o Dir::Etc::sourceparts=/dev/null
            -o Dir::State::Lists=${work}/lists -o Dir::Cache=${work}/cache -o APT::Sandbox::User=root
            -o Acquire::Retries=2 -o Acquire::http::Timeout=30 ${ARGN}
    WORKING_DIRECTORY ${work}
    RESULT_VARIABLE result
    OUTPUT_VARIABLE output
    ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(STATUS "apt-get ${ARGN} failed: ${output}")
  endif()
  set(${result_var} ${result} PARENT_SCOPE)
endfunction()

# The Debian mirrors that apt has package lists of; further arguments are apt's options.
function(_mythos_mirrors out_var)
  execute_process(
    COMMAND apt-get ${ARGN} indextargets --format "$(REPO_URI)|$(ORIGIN)|$(COMPONENT)" "Created-By: Packages"
    OUTPUT_VARIABLE targets ERROR_QUIET)
  string(REGEX MATCHALL "[^\n]+\\|Debian\\|main" mirrors "${targets}")
  list(REMOVE_DUPLICATES mirrors)
  set(${out_var} "${mirrors}" PARENT_SCOPE)
endfunction()

function(_mythos_fetch_with_apt out_var)
  set(${out_var} "" PARENT_SCOPE)
  find_program(MYTHOS_APT_GET apt-get)
  find_program(MYTHOS_DPKG dpkg)
  if(NOT MYTHOS_APT_GET OR NOT MYTHOS_DPKG)
    return()
  endif()
  set(work ${CMAKE_BINARY_DIR}/onnxruntime-headers)
  set(include_dir ${work}/root/usr/include/onnxruntime)
  if(NOT EXISTS ${include_dir}/onnxruntime_cxx_api.h)
    file(MAKE_DIRECTORY ${work}/lists/partial ${work}/cache/archives/partial)
    _mythos_mirrors(mirrors)
    if(mirrors STREQUAL "")
      # A machine that never ran apt-get update, as containers begin: the same in a private folder.
      set(lists -o Dir::State::Lists=${work}/lists -o Dir::Cache=${work}/cache -o APT::Sandbox::User=root)
      execute_process(COMMAND apt-get -q ${lists} update OUTPUT_QUIET ERROR_QUIET)
      _mythos_mirrors(mirrors ${lists})
    endif()
    if(mirrors STREQUAL "")
      message(STATUS "apt knows no Debian mirror: libonnxruntime-dev is not downloaded")
      return()
    endif()
    message(STATUS "Downloading libonnxruntime-dev (headers, 85 KB) with apt into ${work}")
    # bookworm has no libonnxruntime-dev; trixie is the oldest release of Debian that does. One mirror at a time: the
    # machine's security mirror, say, has no suite of that name, and must not spoil the others.
    set(package "")
    foreach(mirror IN LISTS mirrors)
      string(REGEX REPLACE "\\|.*" "" uri "${mirror}")
      file(WRITE ${work}/trixie.list "deb ${uri} trixie main\n")
      _mythos_apt(${work} ${work}/trixie.list failed update)
      if(failed EQUAL 0)
        _mythos_apt(${work} ${work}/trixie.list failed download libonnxruntime-dev)
      endif()
      file(GLOB package ${work}/libonnxruntime-dev_*.deb)
      if(package)
        break()
      endif()
    endforeach()
    if(NOT package)
      return()
    endif()
    list(GET package 0 package)
    execute_process(COMMAND ${MYTHOS_DPKG} -x ${package} ${work}/root RESULT_VARIABLE failed)
    file(REMOVE_RECURSE ${work}/lists ${work}/cache)
    if(NOT failed EQUAL 0)
      return()
    endif()
  endif()
  set(${out_var} ${include_dir} PARENT_SCOPE)
endfunction()

function(mythos_onnxruntime_headers out_var)
  if(ONNXRUNTIME_INCLUDE_DIR)
    if(NOT EXISTS ${ONNXRUNTIME_INCLUDE_DIR}/onnxruntime_cxx_api.h)
      message(FATAL_ERROR "ONNXRUNTIME_INCLUDE_DIR is ${ONNXRUNTIME_INCLUDE_DIR}, where there is no "
                          "onnxruntime_cxx_api.h. Give the folder that holds that file.")
    endif()
    set(${out_var} ${ONNXRUNTIME_INCLUDE_DIR} PARENT_SCOPE)
    return()
  endif()
  find_path(MYTHOS_ORT_SYSTEM_HEADERS onnxruntime_cxx_api.h
            PATH_SUFFIXES onnxruntime onnxruntime/core/session include/onnxruntime)
  if(MYTHOS_ORT_SYSTEM_HEADERS)
    set(${out_var} ${MYTHOS_ORT_SYSTEM_HEADERS} PARENT_SCOPE)
    return()
  endif()
  if(MYTHOS_FETCH_HEADERS)
    _mythos_fetch_with_apt(fetched)
    if(fetched)
      set(${out_var} ${fetched} PARENT_SCOPE)
      return()
    endif()
  endif()
  message(FATAL_ERROR "The C++ headers of ONNX Runtime (onnxruntime_cxx_api.h) were not found: install the package "
                      "libonnxruntime-dev (Debian 13 or newer), or unpack a release of ONNX Runtime 1.21 or newer and "
                      "give its include folder with -DONNXRUNTIME_INCLUDE_DIR=<folder>.")
endfunction()
