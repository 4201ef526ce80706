# Finds headers that neither this repository nor a Python wheel ships, and fetches them where apt can.
#
#   include(Headers)
#   mythos_headers(ONNXRUNTIME_INCLUDE_DIR onnxruntime_cxx_api.h libonnxruntime-dev onnxruntime)
#
# puts into the cache variable ONNXRUNTIME_INCLUDE_DIR the folder with that header, or ends with a sentence that says what
# to do (with MYTHOS_HEADERS_OPTIONAL: goes on, and the variable is false). Looked for in this order:
#   1. -DONNXRUNTIME_INCLUDE_DIR=<folder>, or the environment variable of that name;
#   2. the system's header folders and their subfolders named last (a distribution's package, a CMake prefix);
#   3. on Debian and its relatives: the named package, downloaded with the machine's own apt mirrors and keys and
#      unpacked into MYTHOS_HEADERS. Nothing is installed and the machine's apt lists stay as they are.
#      -DMYTHOS_FETCH_HEADERS=OFF forbids it.

option(MYTHOS_FETCH_HEADERS "Download packages of headers with apt where they are not found" ON)
set(MYTHOS_HEADERS ${CMAKE_BINARY_DIR}/headers CACHE PATH "Where downloaded headers lie")

# bookworm has no libonnxruntime-dev; trixie is the oldest release of Debian that does, so all come from there.
set(_mythos_apt_state -o Dir::State::Lists=${MYTHOS_HEADERS}/lists -o Dir::Cache=${MYTHOS_HEADERS}/cache
    -o APT::Sandbox::User=root)

# The Debian mirrors that apt has package lists of; further arguments are apt's options.
function(_mythos_mirrors out_var)
  execute_process(
    COMMAND apt-get ${ARGN} indextargets --format "$(REPO_URI)|$(ORIGIN)|$(COMPONENT)" "Created-By: Packages"
    OUTPUT_VARIABLE targets ERROR_QUIET)
  string(REGEX MATCHALL "[^\n]+\\|Debian\\|main" mirrors "${targets}")
  list(REMOVE_DUPLICATES mirrors)
  set(${out_var} "${mirrors}" PARENT_SCOPE)
endfunction()

# Writes trixie.list with a mirror that has trixie, and reads its package lists, once per run of CMake.
function(_mythos_update)
  if(EXISTS ${MYTHOS_HEADERS}/trixie.list)
    return()
  endif()
  file(MAKE_DIRECTORY ${MYTHOS_HEADERS}/lists/partial ${MYTHOS_HEADERS}/cache/archives/partial)
  cmake_language(DEFER DIRECTORY ${CMAKE_SOURCE_DIR} CALL file REMOVE_RECURSE
                 ${MYTHOS_HEADERS}/trixie.list ${MYTHOS_HEADERS}/lists ${MYTHOS_HEADERS}/cache)
  _mythos_mirrors(mirrors)
  if(mirrors STREQUAL "")
    # A machine that never ran apt-get update, as containers begin: the same in a private folder.
    execute_process(COMMAND apt-get -q ${_mythos_apt_state} update OUTPUT_QUIET ERROR_QUIET)
    _mythos_mirrors(mirrors ${_mythos_apt_state})
  endif()
  # One mirror at a time: the machine's security mirror, say, has no suite of that name, and must not spoil the others.
  foreach(mirror IN LISTS mirrors)
    string(REGEX REPLACE "\\|.*" "" uri "${mirror}")
    file(WRITE ${MYTHOS_HEADERS}/trixie.list "deb ${uri} trixie main\n")
    _mythos_apt(updated update)
    if(updated)
      return()
    endif()
    file(REMOVE ${MYTHOS_HEADERS}/trixie.list)
  endforeach()
endfunction()

function(_mythos_apt done_var)
  execute_process(
    COMMAND apt-get -q -o Dir::Etc::sourcelist=${MYTHOS_HEADERS}/trixie.list -o Dir::Etc::sourceparts=/dev/null
            -o Acquire::Retries=2 -o Acquire::http::Timeout=30 ${_mythos_apt_state} ${ARGN}
    WORKING_DIRECTORY ${MYTHOS_HEADERS} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  set(${done_var} FALSE PARENT_SCOPE)
  if(result EQUAL 0)
    set(${done_var} TRUE PARENT_SCOPE)
  else()
    message(STATUS "apt-get ${ARGN} failed: ${output}")
  endif()
endfunction()

# Downloads and unpacks a package into MYTHOS_HEADERS/unpacked, where apt can.
function(_mythos_fetch package)
  find_program(MYTHOS_APT_GET apt-get)
  find_program(MYTHOS_DPKG dpkg)
  if(NOT MYTHOS_APT_GET OR NOT MYTHOS_DPKG)
    return()
  endif()
  message(STATUS "Downloading ${package} with apt into ${MYTHOS_HEADERS}")
  _mythos_update()
  if(EXISTS ${MYTHOS_HEADERS}/trixie.list)
    _mythos_apt(downloaded download ${package})
    file(GLOB found ${MYTHOS_HEADERS}/${package}_*.deb)
    if(found)
      list(GET found 0 found)
      execute_process(COMMAND ${MYTHOS_DPKG} -x ${found} ${MYTHOS_HEADERS}/unpacked)
    endif()
  endif()
endfunction()

# `folder`, where given, is a subfolder of the header folders in which the header lies.
function(mythos_headers variable header package)
  if("${${variable}}" STREQUAL "")
    unset(${variable} CACHE)
  endif()
  set(fetched ${MYTHOS_HEADERS}/unpacked/usr/include)
  set(look ${header} HINTS ENV ${variable} PATHS ${fetched} PATH_SUFFIXES ${ARGN})
  find_path(${variable} ${look})
  if(NOT ${variable} AND MYTHOS_FETCH_HEADERS)
    _mythos_fetch(${package})
    find_path(${variable} ${look})
  endif()
  if(NOT ${variable} AND MYTHOS_HEADERS_OPTIONAL)
    return()
  elseif(NOT ${variable})
    message(FATAL_ERROR "${header} was not found: install the package ${package} (Debian 13's, where this release has "
                        "none), or give the folder that holds it with -D${variable}=<folder>.")
  elseif(NOT EXISTS ${${variable}}/${header})
    message(FATAL_ERROR "${variable} is ${${variable}}, where there is no ${header}. Give the folder that holds that file.")
  endif()
endfunction()
