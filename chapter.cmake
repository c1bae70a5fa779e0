# What every chapter's CMakeLists.txt includes. It makes a chapter a project of its own: the common library and the
# techniques of earlier chapters come along, their programs and tests do not.
#
#   add_technique()              the chapter's technique library, from its technique/ folder
#   use_technique(01_collectives)   an earlier chapter's technique library, for this chapter's programs
#   add_program(train)           the program train.cpp
include_guard(GLOBAL)

set(NINEFOLD_ROOT ${CMAKE_CURRENT_LIST_DIR})
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()
add_subdirectory(${NINEFOLD_ROOT}/common ${CMAKE_BINARY_DIR}/common)
