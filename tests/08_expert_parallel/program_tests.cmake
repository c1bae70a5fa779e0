# How tokens find their experts, at tiny size.
set(route $<TARGET_FILE:08_expert_parallel_route>)
add_command_test(08/route EXPECT_OUTPUT "\n     0       0     [0-9]+        0 .*rank 1  [0-9]+ +\\([0-9]+\\)" COMMAND ${route})
add_command_test(08/route/capacity EXPECT_OUTPUT "an expert takes 3 tokens of a sequence.* full +dropped"
  COMMAND ${route} --capacity-factor 1)
add_command_test(08/route/ep EXPECT_EXIT 1 EXPECT_OUTPUT "^ninefold: experts \\(4\\) must be divisible by ep \\(3\\)\n$"
  COMMAND ${route} --ep 3 --sequences 3)
