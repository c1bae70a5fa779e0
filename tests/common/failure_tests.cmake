# Programs that go wrong: a sentence, a non-zero exit code, and no process left.
add_executable(failing_program support/failing_program.cpp)
target_link_libraries(failing_program PRIVATE ninefold_comm ninefold_cuda ninefold_nccl)

function(add_failure_test name ranks exit sentence)
  add_command_test(common/failure/${name} EXPECT_EXIT ${exit} EXPECT_OUTPUT "${sentence}"
    COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/support/ends_cleanly.sh
    ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:failing_program> ${ARGN})
endfunction()

set(rejected "heads .6. must be divisible by tp .4.")
add_failure_test(rejected_by_rank_0 3 1 "ninefold: ${rejected}" reject 0)
add_failure_test(rejected_by_rank_2 3 1 "ninefold: rank 2: ${rejected}" reject 2)
add_failure_test(rejected_by_all 4 1 "^ninefold: ${rejected}\n$" reject_everywhere 0)
add_failure_test(rejected_alone 1 1 "ninefold: ${rejected}" reject_everywhere 0)
add_failure_test(broken_invariant 2 1
  "ninefold: rank 1: rank 1 found a broken invariant .tests/support/failing_program.cpp:[0-9]+." throw 1)
add_failure_test(operation_under_way 3 1 "ninefold: rank 1: rank 1 leaves" drop 1)
add_failure_test(mesh 4 1 "^ninefold: pp.2. x dp_shard.3. x tp.2. = 12 ranks, but the job has 4\n$" mesh 0)
add_failure_test(killed 4 137 "" kill 2)
add_failure_test(mismatch 2 1
  "world: rank 0 calls all_reduce.sum. of 1000 f32 while rank 1 calls all_gather of 500 f32;" mismatch 1 --debug-comm)
# Every rank says where it waits.
set(all_reduce "6 s in all_reduce.sum. of 1000 f32 over world .ranks 0, 1, 2., step 7")
set(recv "6 s in recv of 1000 f32 from rank 2 of the group with tag 5 over world .ranks 0, 1, 2., step 7")
add_failure_test(timeout 3 1 "rank 0 has waited ${all_reduce}.*rank 1 has waited ${recv}.*rank 2 has waited ${all_reduce}"
  absent 1)

# What proves that synchronous sends find programs that rely on buffering.
add_command_test(common/failure/send_first RANKS 2 COMMAND $<TARGET_FILE:failing_program> send_first 0)
add_failure_test(send_first/synchronous 2 1 "has waited 6 s in send of 1000 f32 to rank" send_first 0)
set_property(TEST common/failure/send_first/synchronous APPEND PROPERTY ENVIRONMENT ${NINEFOLD_TEST_SYNCHRONOUS})
