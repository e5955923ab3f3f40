# What every target of Thole has in common: warnings, sanitizers, and one line to add a library, a program or a test.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(CURL REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(ZLIB REQUIRED)
pkg_check_modules(CJSON REQUIRED IMPORTED_TARGET libcjson)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(WEBSOCKETS REQUIRED IMPORTED_TARGET libwebsockets)
pkg_check_modules(MONGOC REQUIRED IMPORTED_TARGET libmongoc-1.0)
pkg_check_modules(OPENBLAS REQUIRED IMPORTED_TARGET openblas)
if(BUILD_TESTING)
  pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
endif()

# Third-party headers are not ours to warn about.
foreach(package CJSON YAML WEBSOCKETS MONGOC OPENBLAS CMOCKA)
  if(TARGET PkgConfig::${package})
    get_target_property(include_directories PkgConfig::${package} INTERFACE_INCLUDE_DIRECTORIES)
    if(include_directories)
      set_target_properties(PkgConfig::${package} PROPERTIES INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${include_directories}")
    endif()
  endif()
endforeach()

add_library(thole_options INTERFACE)
target_compile_definitions(thole_options INTERFACE _GNU_SOURCE THOLE_VERSION="${PROJECT_VERSION}")
# -ffp-contract=off: a fused multiply-add rounds once where two operations round twice, and the model must not
# depend on what the compiler found to fuse.
target_compile_options(thole_options INTERFACE -Wall -Wextra -Wshadow -Wconversion -ffp-contract=off -fno-common)
if(THOLE_WERROR)
  target_compile_options(thole_options INTERFACE -Werror)
endif()
if(THOLE_SANITIZE)
  target_compile_options(thole_options INTERFACE -fsanitize=${THOLE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(thole_options INTERFACE -fsanitize=${THOLE_SANITIZE})
  target_compile_definitions(thole_options INTERFACE THOLE_SANITIZE=1)
endif()

# thole_library(NAME SOURCES a.c … [LINKS lib …]): a static library; headers are included from the repository's root
# ("common/error.h", "kube/watch.h" inside operator/, "wire/wire.h" inside trainer-image/).
function(thole_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINKS" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  if(THOLE_COMPONENT_DIR)
    target_include_directories(${name} PUBLIC ${THOLE_COMPONENT_DIR})
  endif()
  target_link_libraries(${name} PUBLIC thole_options ${arg_LINKS})
endfunction()

function(thole_program name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINKS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR} ${THOLE_COMPONENT_DIR})
  target_link_libraries(${name} PRIVATE thole_options ${arg_LINKS})
endfunction()

# thole_test(NAME SOURCES x_test.c [LINKS lib …]): a cmocka program run by ctest, in the folder of its sources, so
# that tests read their golden files by relative path.
function(thole_test name)
  if(NOT BUILD_TESTING)
    return()
  endif()
  cmake_parse_arguments(arg "" "" "SOURCES;LINKS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR} ${THOLE_COMPONENT_DIR})
  target_link_libraries(${name} PRIVATE thole_options PkgConfig::CMOCKA ${arg_LINKS})
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
endfunction()
