# The chapter's programs. Sizes that no shard and no 64 bytes divide: measured as predicted, or the program fails.
add_command_test(03/memory/odd_sizes RANKS 3 EXPECT_OUTPUT "measured in one step, on the rank that held most"
  COMMAND $<TARGET_FILE:03_zero_fsdp_memory> --measure --ranks 3 --dim 20 --heads 2 --kv-heads 1 --layers 2 --ffn 30
    --length 24 --batch 3)
