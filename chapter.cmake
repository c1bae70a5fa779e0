# What every chapter's CMakeLists.txt includes. It makes a chapter a project of its own: the common library and the
# techniques of earlier chapters come along, their programs and tests do not.
#
#   use_technique(01_collectives)   earlier chapters' techniques, for everything that follows in this chapter
#   add_technique(replicate.cpp)    this chapter's technique library: target technique_02_ddp
#   add_program(train RANKS 2)      the program train.cpp: target 02_ddp_train, file <build>/02_ddp/train; `./run` starts
#                                   it on 2 ranks unless told otherwise
include_guard(GLOBAL)

enable_language(C)  # for FindMPI: the code calls MPI's C interface, the C++ one was removed from MPI
set(NINEFOLD_ROOT ${CMAKE_CURRENT_LIST_DIR})
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()

function(use_technique chapter)
  if(NOT TARGET technique_${chapter})
    set(NINEFOLD_WITHOUT_PROGRAMS ON)
    set(NINEFOLD_TECHNIQUES)
    add_subdirectory(${NINEFOLD_ROOT}/${chapter} ${CMAKE_BINARY_DIR}/${chapter})
  endif()
  set(NINEFOLD_TECHNIQUES ${NINEFOLD_TECHNIQUES} technique_${chapter} PARENT_SCOPE)
endfunction()

function(add_technique)
  cmake_path(GET CMAKE_CURRENT_SOURCE_DIR FILENAME chapter)
  add_library(technique_${chapter} STATIC ${ARGN})
  target_link_libraries(technique_${chapter} PUBLIC ${NINEFOLD_TECHNIQUES} ninefold_train)
  target_precompile_headers(technique_${chapter} REUSE_FROM ninefold_base)
  set(NINEFOLD_TECHNIQUES ${NINEFOLD_TECHNIQUES} technique_${chapter} PARENT_SCOPE)
endfunction()

function(add_program name keyword ranks)  # the ranks are for ./run, which reads them in the chapter's file
  if(NINEFOLD_WITHOUT_PROGRAMS)
    return()
  endif()
  cmake_path(GET CMAKE_CURRENT_SOURCE_DIR FILENAME chapter)
  add_executable(${chapter}_${name} ${name}.cpp)
  target_link_libraries(${chapter}_${name} PRIVATE ${NINEFOLD_TECHNIQUES} ninefold_train)
  target_precompile_headers(${chapter}_${name} REUSE_FROM ninefold_base)
  set_target_properties(${chapter}_${name} PROPERTIES
    OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/${chapter})
endfunction()

add_subdirectory(${NINEFOLD_ROOT}/common ${CMAKE_BINARY_DIR}/common)
