# The chapter's programs.
foreach(ranks 1 2 4)
  add_command_test(05/mlp/ranks_${ranks} RANKS ${ranks} EXPECT_OUTPUT "PASSED: gradients and losses"
    COMMAND $<TARGET_FILE:05_tensor_parallel_mlp>)
endforeach()
add_command_test(05/mlp/does_not_divide RANKS 3 EXPECT_EXIT 1
  EXPECT_OUTPUT "ninefold: the 32 output features of fc1 must be divisible by tp .3."
  COMMAND $<TARGET_FILE:05_tensor_parallel_mlp>)

set(plan $<TARGET_FILE:05_tensor_parallel_plan>)
add_command_test(05/plan/llama COMMAND ${plan} --tp 8 --heads 8 --kv-heads 4
  EXPECT_OUTPUT "layers...attention.wk +column_parallel +.128, 256. +.32, 256. on 2 ranks each +- +all_reduce of its")
add_command_test(05/plan/mlp COMMAND ${plan} --model mlp
  EXPECT_OUTPUT "fc1 +column_parallel +.32, 10. +.16, 10. +- +all_reduce\nfc2 +row_parallel +.5, 32. +.5, 16. +all_reduce +-")
add_command_test(05/plan/image_embeddings COMMAND ${plan} --model image_embeddings EXPECT_OUTPUT
  "key colour matches no layer; the children .* are value .256, 64.*skipping.*channel .* .2, 64., 3 padded to 4 ")
add_command_test(05/plan/does_not_divide EXPECT_EXIT 1 EXPECT_OUTPUT "^ninefold: heads .4. must be divisible by tp .3.\n$"
  COMMAND ${plan} --tp 3)

add_command_test(05/train/no_effect RANKS 1 EXPECT_OUTPUT "--sequence-parallel has no effect: tp is 1.*check passed"
  COMMAND $<TARGET_FILE:05_tensor_parallel_train> --sequence-parallel --steps 1 --layers 1 --dim 32 --ffn 32 --length 16
    --batch 1 --no-measure-peak)
