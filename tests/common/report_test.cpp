#include "common/base/report.h"

#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>

#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

TEST(WriteFileAtomically, ReplacesAndLeavesNothingBeside) {
  const TemporaryFolder folder;
  write_file_atomically(folder.path("a.json"), "first, and longer");
  write_file_atomically(folder.path("a.json"), "second");
  EXPECT_EQ(folder.read("a.json"), "second");
  EXPECT_EQ(folder.files(), 1);
}

TEST(WriteFileAtomically, SaysWhyItCannot) {
  const TemporaryFolder folder;
  const std::string missing = folder.path("none/a.json");
  EXPECT_EQ(sentence_of([&] { write_file_atomically(missing, "x"); }),
            missing + " cannot be written: No such file or directory; choose another place");
  EXPECT_NE(sentence_of([&] { write_file_atomically("/dev/null/a.json", "x"); }).find("cannot be written"),
            std::string::npos);
  // The target is a folder: nothing temporary is left.
  std::filesystem::create_directory(folder.path("taken"));
  EXPECT_NE(sentence_of([&] { write_file_atomically(folder.path("taken"), "x"); }).find("cannot be written"),
            std::string::npos);
  EXPECT_EQ(folder.files(), 1);
}

TEST(RequireWritable, TellsEarlyAndLeavesNothing) {
  const TemporaryFolder folder;
  require_writable(folder.path("a.json"), "--report");
  folder.write("old.json", "kept");
  require_writable(folder.path("old.json"), "--report");
  EXPECT_EQ(folder.read("old.json"), "kept");
  EXPECT_EQ(folder.files(), 1);
  EXPECT_EQ(sentence_of([&] { require_writable(folder.path("none/a.json"), "--report"); }),
            "--report " + folder.path("none/a.json") + ": the folder " + folder.path("none") +
                " does not exist; create it first");
  EXPECT_EQ(sentence_of([&] { require_writable("/dev", "--report"); }), "--report /dev is a folder; name a file in it");
  EXPECT_NE(sentence_of([&] { require_writable("/proc/a.json", "--report"); }).find("cannot be written"),
            std::string::npos);
}

// A rank may be ended by another at any moment: what it looks for must never have a name. (/dev/shm has nameless
// files.)
TEST(RequireWritable, CreatesNothingThatADeadRankWouldLeave) {
  const std::string name = fmt::format("ninefold_report_{}.json", ::getpid());
  const int events = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  ASSERT_GE(::inotify_add_watch(events, "/dev/shm", IN_CREATE), 0);
  require_writable("/dev/shm/" + name, "--report");
  alignas(inotify_event) std::array<char, 65536> buffer;
  const ssize_t length = std::max<ssize_t>(::read(events, buffer.data(), buffer.size()), 0);
  ::close(events);
  EXPECT_EQ(std::string_view(buffer.data(), length).find(name), std::string_view::npos);
}

TEST(Table, AlignsNumbersRightAndTextLeft) {
  Table table({"kind", "predicted", "µs"});
  table.add_row({"parameters", "1.50 MB", "3"});
  table.add_row({"data", "12 B", "-20"});
  EXPECT_EQ(table.text(),
            "kind        predicted   µs\n"
            "parameters    1.50 MB    3\n"
            "data             12 B  -20\n");
  EXPECT_THROW(table.add_row({"too", "few"}), Error);
}

TEST(Human, ThreeDigitsAndAUnit) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(1500), "1.50 kB");
  EXPECT_EQ(human_bytes(25e6), "25.0 MB");
  EXPECT_EQ(human_bytes(999'499), "999 kB");
  EXPECT_EQ(human_bytes(999'500), "1.00 MB");
  EXPECT_EQ(human_bytes(-1500), "-1.50 kB");
  EXPECT_EQ(human_count(950), "950");
  EXPECT_EQ(human_count(70.553e9), "70.6 B");
  EXPECT_EQ(human_rate(2.5e11, "FLOP/s"), "250 GFLOP/s");
  EXPECT_EQ(human_rate(12.345, "tokens/s"), "12.3 tokens/s");
  EXPECT_EQ(human_seconds(0.00085), "850 us");
  EXPECT_EQ(human_seconds(0.0123), "12.3 ms");
  EXPECT_EQ(human_seconds(4.56), "4.56 s");
  EXPECT_EQ(human_seconds(200), "3 min 20 s");
  EXPECT_EQ(human_seconds(7500), "2 h 05 min");
}

}  // namespace
}  // namespace ninefold
