# Runs a command and compares its exit code and what it prints (standard output and error together):
#   cmake -DEXPECT_EXIT=1 -DEXPECT_OUTPUT=regex -P expect.cmake -- command arguments...
# EXPECT_EXIT may be `nonzero`: any failure that the program itself reports, but no signal.
cmake_minimum_required(VERSION 3.25)

set(command)
set(after_dashes OFF)
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE ${last})
  if(after_dashes)
    string(REPLACE ";" "\\;" argument "${CMAKE_ARGV${i}}")
    list(APPEND command "${argument}")
  elseif("${CMAKE_ARGV${i}}" STREQUAL "--")
    set(after_dashes ON)
  endif()
endforeach()

execute_process(COMMAND ${command} RESULT_VARIABLE exit OUTPUT_VARIABLE output ERROR_VARIABLE output)
message("${output}")
if(EXPECT_EXIT STREQUAL "nonzero")
  if(NOT exit MATCHES "^[0-9]+$" OR exit EQUAL 0)
    message(FATAL_ERROR "exit code ${exit}, expected a non-zero one")
  endif()
elseif(NOT exit STREQUAL EXPECT_EXIT)
  message(FATAL_ERROR "exit code ${exit}, expected ${EXPECT_EXIT}")
endif()
if(NOT output MATCHES "${EXPECT_OUTPUT}")
  message(FATAL_ERROR "the output does not match \"${EXPECT_OUTPUT}\"")
endif()
