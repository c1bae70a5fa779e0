# The chapter's programs.
set(show $<TARGET_FILE:06_pipeline_show>)
add_command_test(06/show/published EXPECT_OUTPUT "bubble 0.1585 " COMMAND ${show} --schedule zb-h1
  --stages 8 --micro-batches 24 --f 18.522 --b 18.086 --w 9.337 --comm 0.601)
add_command_test(06/show/1f1b EXPECT_OUTPUT "bubble 0.2727 "  # (p-1)/(m+p-1) = 3/11
  COMMAND ${show} --schedule 1f1b --stages 4 --micro-batches 8)
add_command_test(06/show/interleaved EXPECT_OUTPUT "   0     0 4 .*bubble 0.1579 "  # (p-1)/(v m + p-1) = 3/19
  COMMAND ${show} --schedule interleaved --stages 4 --micro-batches 8 --virtual-stages 2)

# What it writes it reads.
set(folder ${CMAKE_CURRENT_BINARY_DIR}/06_show)
file(MAKE_DIRECTORY ${folder})
file(WRITE ${folder}/times.txt "# F B W of each stage\n1 1 1\n2 1 1\n")
add_command_test(06/show/writes EXPECT_OUTPUT "rank 3" COMMAND ${show} --schedule zb-v --csv ${folder}/table.csv
  --svg ${folder}/picture.svg)
add_command_test(06/show/reads EXPECT_OUTPUT "table.csv: 4 ranks, 8 stages, 8 micro-batches.*bubble 0.0000 "
  COMMAND ${show} --schedule-csv ${folder}/table.csv)
set_tests_properties(06/show/writes PROPERTIES FIXTURES_SETUP 06_show)
set_tests_properties(06/show/reads PROPERTIES FIXTURES_REQUIRED 06_show)
add_command_test(06/show/times EXPECT_OUTPUT "   1       1 .* 8.000 .*bubble 0.3636 "  # 1 - (6 + 8) / 2 / 11
  COMMAND ${show} --stages 2 --micro-batches 2 --times ${folder}/times.txt)

function(add_refusal_test name sentence)
  add_command_test(06/show/${name} EXPECT_EXIT 1 EXPECT_OUTPUT "^ninefold: ${sentence}\n$" COMMAND ${show} ${ARGN})
endfunction()
add_refusal_test(interleaved_rule "interleaved needs micro-batches .6. divisible by stages .4.: [^\n]*"
  --schedule interleaved --micro-batches 6)
add_refusal_test(dualpipe_rule "dualpipe needs even numbers of stages .4. and micro-batches .7.: [^\n]*"
  --schedule dualpipe --micro-batches 7)
add_refusal_test(no_micro_batches "--micro-batches .0. must be at least 1" --micro-batches 0)
add_refusal_test(unknown_schedule "[^\n]*zb-h3[^\n]*" --schedule zb-h3)
add_refusal_test(no_virtual_stages "--virtual-stages is for interleaved; gpipe has [^\n]*"
  --schedule gpipe --virtual-stages 2)
add_refusal_test(no_time "--f, --b and --w are all 0; something must take time" --f 0 --b 0 --w 0)
add_refusal_test(two_kinds_of_times "--times and --f exclude each other; give one" --f 1 --times ${folder}/times.txt)
add_refusal_test(times_of_other_stages "[^\n]*/times.txt has times for 2 stages, but the schedule has 4"
  --times ${folder}/times.txt)

# Wrong tables: each names row and column.
function(add_table_test name table sentence)
  file(WRITE ${folder}/${name}.csv "${table}")
  add_refusal_test(csv_${name} "[^\n]*/${name}.csv, ${sentence}" --schedule-csv ${folder}/${name}.csv ${ARGN})
endfunction()
add_table_test(missing "0F0,0B0\n1B0\n" "row 2 .rank 1., column 1: 1B0 cannot start: it needs 1F0, which is missing")
add_table_test(twice "0F0,0B0,0F0\n" "row 1 .rank 0., column 3: 0F0 is there a second time; the first is in row 1 .*")
add_table_test(cycle "0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n"
  "row 1 .rank 0., column 2: 0B0 cannot start: it needs 1B0 in row 2 .rank 1., column 3, which comes after 1F1 .*")
add_table_test(letter "0F0,0B0\n1F0,1Q0\n" "row 2 .rank 1., column 2: '1Q0' has the unknown letter 'Q'; .*")
add_table_test(rank "0F0,,,0B0\n,1F0,1B0\n"
  "row 2 .rank 1., column 2: 1F0 is on a rank too many; the pipeline has 1" --stages 1)
