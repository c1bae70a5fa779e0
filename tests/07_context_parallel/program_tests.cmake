# The chapter's programs.
set(attention $<TARGET_FILE:07_context_parallel_attention>)
foreach(ranks 1 3 4)
  add_command_test(07/attention/ranks_${ranks} RANKS ${ranks} EXPECT_OUTPUT "PASSED\n$"
    COMMAND ${attention} --length 768 --batch 2 --head-dim 16 --repeat 1 --cluster "cp=1GB/s,1us compute=100GF/s")
endforeach()
add_command_test(07/attention/bf16 RANKS 2 EXPECT_OUTPUT "PASSED\n$"
  COMMAND ${attention} --length 512 --head-dim 16 --repeat 1 --dtype bf16 --layout zigzag,gathered)
add_command_test(07/attention/unknown_layout RANKS 2 EXPECT_EXIT 1 EXPECT_OUTPUT "^ninefold: --layout spiral is none; there are all, contiguous"
  COMMAND ${attention} --layout spiral)
add_command_test(07/attention/does_not_divide RANKS 2 EXPECT_EXIT 1
  EXPECT_OUTPUT "^ninefold: length .514. must be divisible by 2 x cp = 4 for the layout zigzag"
  COMMAND ${attention} --length 514 --layout zigzag)

# What one rank may not hold, several train.
set(long $<TARGET_FILE:07_context_parallel_train> --dim 32 --layers 2 --heads 2 --kv-heads 2 --ffn 64 --length 1024
  --batch 2 --steps 1 --no-check --no-measure-peak --memory-limit 6MB)
add_command_test(07/train/one_rank_refuses EXPECT_EXIT 1
  EXPECT_OUTPUT "ninefold: this rank's memory limit of 6.00 MB has no room for .* beside .* of activations"
  COMMAND ${long})
add_command_test(07/train/four_ranks_train RANKS 4 EXPECT_OUTPUT "books balanced" COMMAND ${long})
