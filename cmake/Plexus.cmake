# Helpers that every folder's CMakeLists.txt uses.

option(PLEXUS_BUILD_TESTS "Build the tests" ON)
set(PLEXUS_SANITIZE "" CACHE STRING "Sanitizers for the whole build, e.g. address,undefined or thread")

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

# -O2 for the bulk keeps builds short; files with hot kernels ask for -O3 themselves.
if(NOT PLEXUS_SANITIZE)
  set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
endif()

find_program(PLEXUS_CCACHE ccache)
if(PLEXUS_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${PLEXUS_CCACHE}")
endif()
find_program(PLEXUS_MOLD mold)
if(PLEXUS_MOLD AND NOT PLEXUS_SANITIZE)
  add_link_options(-fuse-ld=mold)
endif()

# -Wrestrict: GCC 12 reports std::string concatenation falsely (GCC bug 105651).
add_compile_options(-Wall -Wextra -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-Wno-restrict)
endif()
if(PLEXUS_SANITIZE)
  add_compile_options(-fsanitize=${PLEXUS_SANITIZE} -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${PLEXUS_SANITIZE})
endif()

find_package(Threads REQUIRED)

# plexus_library(NAME SOURCES... [DEPS targets...]): a layer's static library, included as
# "layer/file.h" from the project's root. DEPS are public: they are the layers it may use.
function(plexus_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC "${PROJECT_SOURCE_DIR}")
  target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
endfunction()

# plexus_test(NAME SOURCES... [DEPS...] [LABELS...]): one GoogleTest binary, one ctest entry.
function(plexus_test name)
  if(NOT PLEXUS_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;LABELS;ENVIRONMENT" ${ARGN})
  find_package(GTest REQUIRED)
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gtest GTest::gtest_main Threads::Threads)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT})
  if(ARG_LABELS)
    set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}")
  endif()
endfunction()
