#!/usr/bin/env bash
# What a lesson's test lets pass and what it does not: a small lesson is renewed and checked, then each of its figures is
# changed in turn. Times, rates and words of the machine may change; nothing else may.
#   lesson_changes.sh LESSONS_SH
set -euo pipefail
lessons=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >output.txt <<'OUTPUT'
09/train: 6.56 M parameters; oneDNN 2.6.3, 512-bit vectors, bf16 native
   step      loss  grad norm   wall ms virtual ms     tokens/s    GFLOP/s  % peak
      0   5.59280     1.6410     707.9    172.407         2893      121.7    56.0
after 156 steps: evaluation loss 0.16208, accuracy 94.60 % of 2000 images

491.5 ms per step (median), 4167 tokens/s, 175 GFLOP/s = 79.3 % of the matmul peak 221 GFLOP/s of 2 ranks
exposed communication: 3.4 ms of wall time per step
virtual time: 12.5 ms per step (median), exposed communication 1.750 ms

memory                      predicted  measured peak
parameters                    26.2 MB        26.2 MB  equal to the byte
workspace                           -         656 kB
traffic of rank 0  operation   calls/step  predicted/step  sent/step
dp_replicate       all_reduce           2         35.0 MB    35.0 MB  equal to the byte
check passed: 4 steps: every gradient within 4.7e-08 of its scale (norm.weight), update bit-identical
gathered values are off by 2.58e-02 of their norm, rounded on their way
# copies between processes: CMA
#       size       count  type  redop  algorithm                time   algbw   busbw #wrong  x mpi
     1048576      262144   f32    sum  ours                   135.79   7.722   7.722      0   3.37
OUTPUT
cat >bench--cluster.txt <<'OUTPUT'
#       size       count  type  redop  algorithm                time   algbw   busbw #wrong  x mpi
        1024         256   f32    sum  ours                    63.07   0.016   0.028      0      -
OUTPUT
cat >README.md <<README
A lesson of 491.5 ms.

<!-- captured: cat $folder/output.txt -->
<!-- end -->

  <!-- captured head=1 tail=2: cat $folder/output.txt -->
  an old line
  <!-- end -->

<!-- captured: cat $folder/bench--cluster.txt -->
<!-- end -->

<!-- quoted tests/support/numbers.h: namespace ninefold -->
<!-- end -->

<!-- picture drawing.svg: echo '<svg/>' >drawing.svg -->
![a drawing](drawing.svg)
README

fail() {
  echo "$1" >&2
  exit 1
}

bash "$lessons" renew README.md
grep -qx '  \.\.\.' README.md || fail "long output should be shortened"
! grep -q 'an old line' README.md || fail "the old block should be gone"
grep -qx '<svg/>' drawing.svg || fail "the picture should lie beside the README"
bash "$lessons" check README.md
cp README.md whole.md

after() { # sed command: the lesson's check after this change
  sed "$1" whole.md >README.md
  ! cmp -s whole.md README.md || { echo "the change $1 changes nothing" >&2 && exit 2; }
  bash "$lessons" check README.md >log.txt 2>&1
}

for change in s/707.9/99.1/ 's/3.4 ms of/0.2 ms of/' s/2893/90/ s/121.7/1.5/ s/56.0/101.2/ 's/491.5 ms per/1491.5 ms per/' s/4167/12/ \
  's/175 GF/17.5 GF/' s/79.3/100/ s/221/99.9/ 's/656 kB/1.20 MB/' s/2.6.3/3.1/ s/512-bit/256-bit/ s/native/emulated/ \
  's/4.7e-08 of its scale (norm.weight)/1.2e-07 of its scale (output.weight)/' 's/: CMA/: not CMA/' s/2.58e-02/3.1e-02/ \
  s/135.79/1135.80/ 's/7.722   7.722/0.100   0.101/' 's/3.37$/0.9/' s/5.59280/5.59281/ 's/94.60 %/94.65 %/'; do
  after "$change" || { cat log.txt; fail "the change $change should pass"; }
done

for change in s/6.56/6.57/ 's/      0   5/      1   5/' s/5.59280/5.69280/ s/1.6410/1.6510/ s/156/157/ s/0.16208/0.17208/ \
  's/94.60 %/95.60 %/' 's/2000 im/1999 im/' 's/of 2 ranks/of 3 ranks/' s/172.407/172.408/ 's/12.5 ms/12.6 ms/' s/1.750/1.751/ 's/26.2 MB  eq/26.3 MB  eq/' \
  's/           2   /           3   /' 's/35.0 MB    35/35.1 MB    35/' 's/equal to the byte/differs/' s/passed/failed/ \
  's/4 steps/3 steps/' s/bit-identical/bounded/ 's/      0   3.37/      1   3.37/' s/1048576/1048577/ s/ours/ring/ s/63.07/63.08/ \
  /bit-identical/d 's/^namespace/namespaces/' 's/<!-- captured/<!-- capture/'; do
  ! after "$change" || fail "the change $change should be found"
done

cp whole.md README.md
echo '<svg></svg>' >drawing.svg
! bash "$lessons" check README.md 2>log.txt || fail "another picture should be found"
sed '0,/<!-- end -->/d' whole.md | sed '/<!-- end -->/d' >README.md
! bash "$lessons" renew README.md 2>log.txt || fail "a missing end should be found"
grep -q 'no <!-- end -->' log.txt
