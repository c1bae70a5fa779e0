# The whole sweep: ctest -C full, ./run test --full.
foreach(ranks 1 2 4 8 16)
  set(name 09_combined_3d/sweep_test/full/ranks_${ranks})
  add_test(NAME ${name} CONFIGURATIONS full COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks}
    $<TARGET_FILE:09_combined_3d_sweep_test> --ranks=${ranks} --gtest_also_run_disabled_tests)
  set_mpi_test_properties(${name} ${ranks})
  set_tests_properties(${name} PROPERTIES TIMEOUT 3600)
endforeach()
