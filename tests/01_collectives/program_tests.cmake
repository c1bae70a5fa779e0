# The chapter's programs, and its books against Open MPI's own count.
add_executable(monitored_program support/monitored_program.cpp)
target_link_libraries(monitored_program PRIVATE technique_01_collectives)
foreach(carrier ours ordered mpi)
  foreach(ranks 2 3 4 8)
    add_command_test(01_collectives/monitoring/${carrier}/ranks_${ranks} COMMAND bash
      ${CMAKE_CURRENT_SOURCE_DIR}/support/monitoring.sh ${MPIEXEC_EXECUTABLE} ${ranks} $<TARGET_FILE:monitored_program> ${carrier})
  endforeach()
endforeach()

set(show $<TARGET_FILE:01_collectives_show>)
add_command_test(01/show/ring COMMAND ${show} --collective all_reduce --algorithm ring --ranks 4
  EXPECT_OUTPUT "step 3 of 6\n  0 --c1--> 1.*rank 0  .0321\\*   032 .*6 steps.*0         6     1572864              1.500")
add_command_test(01/show/all_to_all COMMAND ${show} --collective all_to_all --ranks 5 EXPECT_OUTPUT "step 4 of 4")
add_command_test(01/show/unknown_algorithm EXPECT_EXIT 1 COMMAND ${show} --algorithm rings
  EXPECT_OUTPUT "^ninefold: all_reduce has no algorithm 'rings': there are ring, recursive_doubling, [a-z_, ]+\n$")
add_command_test(01/show/root EXPECT_EXIT 1 COMMAND ${show} --collective broadcast --ranks 3 --root 3
  EXPECT_OUTPUT "^ninefold: --root .3. must be below --ranks .3.\n$")

add_command_test(01/show/svg EXPECT_EXIT 1 COMMAND ${show} --svg /no/such/folder/ring.svg
  EXPECT_OUTPUT "ninefold: .*/no/such/folder")

set(bench $<TARGET_FILE:01_collectives_bench>)
foreach(ranks 2 3)
  add_command_test(01/bench/ranks_${ranks} RANKS ${ranks} SYNCHRONOUS
    EXPECT_OUTPUT "copies between processes: .*# wrong elements: 0 OK" COMMAND ${bench} --collective all -b 4 -e 64K -f 128 --rounds 2 -n 1 -w 1 --segment 4K)
endforeach()
foreach(type bf16 f16 i32)
  add_command_test(01/bench/${type} RANKS 2 EXPECT_OUTPUT "# wrong elements: 0 OK"
    COMMAND ${bench} --collective all -b 1K -e 1K --rounds 1 -n 1 -d ${type} -o prod)
endforeach()
add_command_test(01/bench/one_rank RANKS 1 EXPECT_EXIT 1 COMMAND ${bench} EXPECT_OUTPUT "needs at least 2 ranks")
