# How a test is built and run; tests/CMakeLists.txt shows how each function is called.
#
# A test finds its golden files under NINEFOLD_TEST_DATA (tests/data) and the embedded data under NINEFOLD_DATA (data),
# both string literals that end without a slash.

# Works as root in a container and with more ranks than cores. Ranks are not bound to cores: tests run side by side,
# and each mpirun would bind its first rank to the same core. mpirun adds nothing to what a failing program says, and
# looks for no network card (cm, ucx), which takes it 0.2 seconds.
set(NINEFOLD_TEST_ENVIRONMENT
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
  OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_orte_execute_quiet=1 OMPI_MCA_pml=^cm,ucx OMP_NUM_THREADS=1)
set(NINEFOLD_TEST_AVX2 ONEDNN_MAX_CPU_ISA=AVX2)
set(NINEFOLD_TEST_TIMEOUT 300)  # seconds

# No send completes before it is received: a test that relies on buffering hangs. What passes so passes with buffers too,
# which only ./run test --full tries.
set(NINEFOLD_TEST_BUFFERED CONFIGURATIONS full)
add_library(ninefold_synchronous_sends SHARED ${CMAKE_CURRENT_LIST_DIR}/synchronous_sends.cpp)
target_compile_options(ninefold_synchronous_sends PRIVATE -fno-sanitize=all)  # it is preloaded into mpirun, too
target_link_options(ninefold_synchronous_sends PRIVATE -fno-sanitize=all)
target_link_libraries(ninefold_synchronous_sends PRIVATE ninefold_comm)  # for MPI: nothing of it is linked
set(NINEFOLD_TEST_SYNCHRONOUS LD_PRELOAD=$<TARGET_FILE:ninefold_synchronous_sends>)

# What is tested is optimised as for users; the tests themselves gain nothing from it but a longer build.
set(NINEFOLD_TEST_OPTIMISATION $<$<CONFIG:Release>:-O1>)

# The main of add_mpi_test, and what all tests include.
add_library(ninefold_mpi_main STATIC ${CMAKE_CURRENT_LIST_DIR}/mpi_main.cpp)
target_link_libraries(ninefold_mpi_main PUBLIC ninefold_comm GTest::gtest)
target_compile_options(ninefold_mpi_main PRIVATE ${NINEFOLD_TEST_OPTIMISATION})
get_target_property(NINEFOLD_PRECOMPILED ninefold_base PRECOMPILE_HEADERS)
target_precompile_headers(ninefold_mpi_main PRIVATE ${NINEFOLD_PRECOMPILED} <gtest/gtest.h>)

function(add_test_program target source main)
  add_executable(${target} ${source}.cpp)
  target_link_libraries(${target} PRIVATE ${ARGN} ${main} GTest::gtest)
  target_compile_definitions(${target} PRIVATE NINEFOLD_TEST_DATA="${NINEFOLD_ROOT}/tests/data")
  target_compile_options(${target} PRIVATE ${NINEFOLD_TEST_OPTIMISATION})
  target_precompile_headers(${target} REUSE_FROM ninefold_mpi_main)
endfunction()

# What ./run test leaves to ./run test --full.
set(NINEFOLD_TEST_USUAL --gtest_filter=-WholeProduct.*)
set(NINEFOLD_TEST_FULL --gtest_filter=WholeProduct.*)

function(add_unit_test name)
  cmake_parse_arguments(arg "ALSO_AVX2;ALSO_FULL" "" "LINK" ${ARGN})
  string(REPLACE "/" "_" target ${name})
  add_test_program(${target} ${name} GTest::gtest_main ${arg_LINK})
  add_test(NAME ${name} COMMAND ${target} ${NINEFOLD_TEST_USUAL})
  set_tests_properties(${name} PROPERTIES ENVIRONMENT "${NINEFOLD_TEST_ENVIRONMENT}" TIMEOUT ${NINEFOLD_TEST_TIMEOUT})
  if(arg_ALSO_FULL)
    add_test(NAME ${name}/full COMMAND ${target} ${NINEFOLD_TEST_FULL} CONFIGURATIONS full)
    set_tests_properties(${name}/full PROPERTIES ENVIRONMENT "${NINEFOLD_TEST_ENVIRONMENT}")
  endif()
  if(arg_ALSO_AVX2)
    add_test(NAME ${name}/avx2 COMMAND ${target} ${NINEFOLD_TEST_USUAL})
    set_tests_properties(${name}/avx2 PROPERTIES TIMEOUT ${NINEFOLD_TEST_TIMEOUT}
      ENVIRONMENT "${NINEFOLD_TEST_ENVIRONMENT};${NINEFOLD_TEST_AVX2}")
  endif()
endfunction()

# A test of operations runs once on every device: its make_test_device() says on which. ONE_ORDER: of fibres only the
# shuffled.
set(NINEFOLD_TEST_DEVICES)
if(TARGET ninefold_fibres)
  list(APPEND NINEFOLD_TEST_DEVICES fibres_forward fibres_reverse fibres_shuffled)
endif()
if(NINEFOLD_CUDA)  # skipped where there is no GPU
  list(APPEND NINEFOLD_TEST_DEVICES cuda)
endif()
function(add_operation_test name)
  cmake_parse_arguments(arg "ALSO_AVX2;ONE_ORDER" "" "LINK" ${ARGN})
  if(arg_ONE_ORDER)
    list(REMOVE_ITEM NINEFOLD_TEST_DEVICES fibres_forward fibres_reverse)
  endif()
  if(NOT TARGET ninefold_test_device)
    add_library(ninefold_test_device STATIC ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/test_device.cpp)
    target_link_libraries(ninefold_test_device PUBLIC ninefold_cuda GTest::gtest)
    if(TARGET ninefold_fibres)
      target_link_libraries(ninefold_test_device PUBLIC ninefold_fibres)
    else()
      target_sources(ninefold_test_device PRIVATE ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/no_fibre_device.cpp)
    endif()
  endif()
  string(REPLACE "/" "_" target ${name})
  add_test_program(${target} ${name} ninefold_test_device ${arg_LINK})
  foreach(device cpu ${NINEFOLD_TEST_DEVICES})
    set(test ${name}/${device})
    if(device STREQUAL "cpu")
      set(test ${name})
    endif()
    add_test(NAME ${test} COMMAND ${target} --device=${device})
    set_tests_properties(${test} PROPERTIES SKIP_RETURN_CODE 77
      ENVIRONMENT "${NINEFOLD_TEST_ENVIRONMENT}" TIMEOUT ${NINEFOLD_TEST_TIMEOUT})
  endforeach()
  if(arg_ALSO_AVX2)
    add_test(NAME ${name}/avx2 COMMAND ${target})
    set_tests_properties(${name}/avx2 PROPERTIES TIMEOUT ${NINEFOLD_TEST_TIMEOUT}
      ENVIRONMENT "${NINEFOLD_TEST_ENVIRONMENT};${NINEFOLD_TEST_AVX2}")
  endif()
endfunction()

# ctest counts processors so that it does not start more ranks at once than the machine has cores; two is the most that
# every machine is sure to give. Further arguments are added to the environment.
function(set_mpi_test_properties name ranks)
  set(processors 2)
  if(ranks LESS 2)
    set(processors 1)
  endif()
  set_tests_properties(${name} PROPERTIES ENVIRONMENT "${NINEFOLD_TEST_ENVIRONMENT};${ARGN}"
    TIMEOUT ${NINEFOLD_TEST_TIMEOUT} PROCESSORS ${processors})
endfunction()

function(add_mpi_test name)
  cmake_parse_arguments(arg "ALSO_AVX2" "" "LINK;RANKS;FULL_RANKS" ${ARGN})
  string(REPLACE "/" "_" target ${name})
  add_test_program(${target} ${name} ninefold_mpi_main ${arg_LINK})
  foreach(ranks IN LISTS arg_RANKS)
    set(command ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:${target}> --ranks=${ranks} ${NINEFOLD_TEST_USUAL})
    set(when)
    if(ranks EQUAL 4)  # a send that relies on buffering does so with any number of ranks above 2
      add_test(NAME ${name}/ranks_${ranks}/synchronous COMMAND ${command} --synchronous-sends)
      set_mpi_test_properties(${name}/ranks_${ranks}/synchronous ${ranks} ${NINEFOLD_TEST_SYNCHRONOUS})
      set(when ${NINEFOLD_TEST_BUFFERED})
    endif()
    add_test(NAME ${name}/ranks_${ranks} COMMAND ${command} ${when})
    set_mpi_test_properties(${name}/ranks_${ranks} ${ranks})
    if(arg_ALSO_AVX2)
      add_test(NAME ${name}/ranks_${ranks}/avx2 COMMAND ${command} ${when})
      set_mpi_test_properties(${name}/ranks_${ranks}/avx2 ${ranks} ${NINEFOLD_TEST_AVX2})
    endif()
  endforeach()
  foreach(ranks IN LISTS arg_FULL_RANKS)
    add_test(NAME ${name}/ranks_${ranks}/full CONFIGURATIONS full
      COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:${target}> --ranks=${ranks} ${NINEFOLD_TEST_FULL})
    set_mpi_test_properties(${name}/ranks_${ranks}/full ${ranks})
    set_tests_properties(${name}/ranks_${ranks}/full PROPERTIES TIMEOUT 3600)
  endforeach()
endfunction()

# With --device cuda as fibres, and NCCL as tests/support/fake_nccl, which come before the libraries of those names.
function(add_device_test name)
  if(NOT TARGET ninefold_fibres)
    return()
  endif()
  add_mpi_test(${name} ${ARGN})
  string(REPLACE "/" "_" target ${name})
  stand_in_for_gpus(${target})
endfunction()

function(stand_in_for_gpus target)
  set(support ${CMAKE_CURRENT_FUNCTION_LIST_DIR})
  file(GLOB nccl ${NINEFOLD_ROOT}/common/comm/nccl/*.cpp ${support}/fake_nccl/*.cpp)
  target_sources(${target} PRIVATE ${nccl} ${support}/fibre_gpu.cpp)
  target_include_directories(${target} BEFORE PRIVATE ${support}/fake_nccl)
  target_link_libraries(${target} PRIVATE ninefold_fibres)
endfunction()

function(add_program_test name)
  cmake_parse_arguments(arg "SYNCHRONOUS;ALSO_FULL" "" "" ${ARGN})
  string(REPLACE "/" "_" target ${name})
  add_test_program(${target} ${name} GTest::gtest_main ninefold_data)
  add_dependencies(${target} 01_collectives_bench 02_ddp_train 03_zero_fsdp_train 03_zero_fsdp_mnist
    04_model_parallel_train 05_tensor_parallel_train 06_pipeline_train 07_context_parallel_train
    08_expert_parallel_train 09_combined_3d_train 09_combined_3d_generate)
  target_compile_definitions(${target} PRIVATE NINEFOLD_MPIEXEC="${MPIEXEC_EXECUTABLE}"
    NINEFOLD_01_BENCH="$<TARGET_FILE:01_collectives_bench>" NINEFOLD_02_TRAIN="$<TARGET_FILE:02_ddp_train>"
    NINEFOLD_03_TRAIN="$<TARGET_FILE:03_zero_fsdp_train>" NINEFOLD_03_MNIST="$<TARGET_FILE:03_zero_fsdp_mnist>"
    NINEFOLD_04_TRAIN="$<TARGET_FILE:04_model_parallel_train>"
    NINEFOLD_05_TRAIN="$<TARGET_FILE:05_tensor_parallel_train>" NINEFOLD_06_TRAIN="$<TARGET_FILE:06_pipeline_train>"
    NINEFOLD_07_TRAIN="$<TARGET_FILE:07_context_parallel_train>"
    NINEFOLD_08_TRAIN="$<TARGET_FILE:08_expert_parallel_train>"
    NINEFOLD_09_TRAIN="$<TARGET_FILE:09_combined_3d_train>"
    NINEFOLD_09_GENERATE="$<TARGET_FILE:09_combined_3d_generate>")
  set(when)
  if(arg_SYNCHRONOUS)
    add_test(NAME ${name}/synchronous COMMAND ${target} ${NINEFOLD_TEST_USUAL})
    set_mpi_test_properties(${name}/synchronous 4 ${NINEFOLD_TEST_SYNCHRONOUS})
    set(when ${NINEFOLD_TEST_BUFFERED})
  endif()
  add_test(NAME ${name} COMMAND ${target} ${NINEFOLD_TEST_USUAL} ${when})
  set_mpi_test_properties(${name} 4)
  if(arg_ALSO_FULL)
    add_test(NAME ${name}/full COMMAND ${target} ${NINEFOLD_TEST_FULL} CONFIGURATIONS full)
    set_mpi_test_properties(${name}/full 4)
  endif()
endfunction()

function(add_command_test name)
  cmake_parse_arguments(arg "SYNCHRONOUS" "RANKS;EXPECT_EXIT;EXPECT_OUTPUT" "COMMAND" ${ARGN})
  if(NOT DEFINED arg_EXPECT_EXIT)
    set(arg_EXPECT_EXIT 0)
  endif()
  set(ranks 1)
  if(arg_RANKS)
    set(ranks ${arg_RANKS})
    list(PREPEND arg_COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks})
  endif()
  set(command ${CMAKE_COMMAND} "-DEXPECT_EXIT=${arg_EXPECT_EXIT}" "-DEXPECT_OUTPUT=${arg_EXPECT_OUTPUT}"
    -P ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/expect.cmake -- ${arg_COMMAND})
  set(when)
  if(arg_SYNCHRONOUS)
    add_test(NAME ${name}/synchronous COMMAND ${command})
    set_mpi_test_properties(${name}/synchronous 1 ${NINEFOLD_TEST_SYNCHRONOUS})
    set(when ${NINEFOLD_TEST_BUFFERED})
  endif()
  add_test(NAME ${name} COMMAND ${command} ${when})
  set_mpi_test_properties(${name} 1)  # whatever the ranks: it mostly waits for processes to start and to end
endfunction()

# The commands of a chapter's lesson print what its README holds. They are of full size: only where code is optimised.
function(add_lesson_test chapter)
  if(NOT CMAKE_BUILD_TYPE STREQUAL "Release")
    return()
  endif()
  add_test(NAME lessons/${chapter} COMMAND bash ${NINEFOLD_ROOT}/docs/lessons.sh check
    ${NINEFOLD_ROOT}/${chapter}/README.md ${CMAKE_BINARY_DIR})
  set_mpi_test_properties(lessons/${chapter} 2)
endfunction()
