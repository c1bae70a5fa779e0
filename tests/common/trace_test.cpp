#include "common/base/trace.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

nlohmann::json exported(const std::vector<std::string>& ranks) {
  const TemporaryFolder folder;
  write_trace(folder.path("trace.json"), ranks);
  return nlohmann::json::parse(folder.read("trace.json"))["traceEvents"];
}

TEST(Trace, SpansNestAndEndInOrder) {
  Trace trace(0);
  {
    const Span outer(&trace, "step", "step {}", 3);
    const Span inner(&trace, "compute", "layers.{}.{}", 0, "attention");
  }
  ASSERT_EQ(trace.spans().size(), 2u);
  const auto& inner = trace.spans()[0];
  const auto& outer = trace.spans()[1];
  EXPECT_EQ(inner.name, "layers.0.attention");
  EXPECT_EQ(outer.name, "step 3");
  EXPECT_LE(outer.begin, inner.begin);
  EXPECT_LE(inner.begin, inner.end);
  EXPECT_LE(inner.end, outer.end);
}

// Formatting it would throw.
struct Unprintable {};

}  // namespace
}  // namespace ninefold

template <>
struct fmt::formatter<ninefold::Unprintable> : fmt::formatter<int> {
  auto format(const ninefold::Unprintable&, format_context& context) const -> decltype(context.out()) {
    throw std::runtime_error("formatted");
  }
};

namespace ninefold {
namespace {

TEST(Trace, NothingHappensWithoutATrace) {
  EXPECT_NO_THROW(Span(nullptr, "compute", "{}", Unprintable()));
  Trace trace(0);
  EXPECT_THROW(Span(&trace, "compute", "{}", Unprintable()), std::runtime_error);
}

TEST(Trace, CountsCoveredTimeOnce) {
  Trace trace(0);
  const int64_t second = 1'000'000'000;
  trace.add_span("inner", "wait", 1 * second, 2 * second);
  trace.add_span("outer", "wait", 0 * second, 3 * second);
  trace.add_span("later", "wait", 5 * second, 6 * second);
  trace.add_span("other", "compute", 0 * second, 9 * second);
  EXPECT_EQ(trace.seconds_in("wait"), 4);
  EXPECT_EQ(trace.seconds_in("nothing"), 0);
}

TEST(Trace, ReadsVirtualTimeAndCountersWithEverySpan) {
  Trace trace(0);
  double now = 0;
  int read = 0;
  trace.virtual_now = [&] { return now; };
  trace.after_span = [&] { ++read; };
  {
    const Span step(&trace, "step", "step");
    now = 1;
    {
      const Span layer(&trace, "compute", "layer");
      now = 3;
    }
    EXPECT_EQ(read, 1);
    const Span takes_no_time(&trace, "compute", "on paper");
  }
  EXPECT_EQ(read, 3);
  EXPECT_EQ(trace.spans().size(), 3u);
  ASSERT_EQ(trace.virtual_spans().size(), 2u);
  EXPECT_EQ(trace.virtual_spans()[0].name, "layer");
  EXPECT_EQ(trace.virtual_spans()[0].begin, 1'000'000'000);
  EXPECT_EQ(trace.virtual_spans()[0].end, 3'000'000'000);
  EXPECT_EQ(trace.virtual_spans()[1].begin, 0);
}

// By thread name; events of one thread must lie within or beside each other, or viewers draw them wrong.
std::map<std::string, std::vector<std::string>> rows_of(const nlohmann::json& events, const std::string& process) {
  std::map<int, std::string> processes;
  std::map<std::pair<int, int>, std::string> threads;
  std::map<std::string, std::vector<std::string>> rows;
  for (const auto& event : events) {
    if (event["name"] == "process_name") processes[event["pid"]] = event["args"]["name"];
    if (event["name"] == "thread_name") threads[{event["pid"], event["tid"]}] = event["args"]["name"];
    if (event["ph"] == "X" && processes.at(event["pid"]) == process) {
      rows[threads.at({event["pid"], event["tid"]})].push_back(event["name"]);
    }
  }
  return rows;
}

TEST(Trace, DrawsOverlappingSpansOnLinesOfTheirOwn) {
  Trace trace(3);
  trace.add_span("bucket 1", "communication", 20, 60);
  trace.add_span("bucket 0", "communication", 10, 50);
  trace.add_span("bucket 2", "communication", 60, 70);
  trace.add_span("inner", "communication", 60, 65);
  trace.add_span("layer", "compute", 0, 100);
  const auto rows = rows_of(exported({trace.serialise()}), "rank 3");
  EXPECT_EQ(rows, (std::map<std::string, std::vector<std::string>>{{"communication", {"bucket 0", "bucket 2", "inner"}},
                                                                   {"communication 2", {"bucket 1"}},
                                                                   {"compute", {"layer"}}}));
}

TEST(Trace, HasRowsOfItsOwnForVirtualTime) {
  std::vector<std::string> ranks;
  for (const int rank : {0, 1}) {
    Trace trace(rank);
    trace.set_origin(5'000'000'000);  // of the wall
    trace.add_span("wall", "compute", 5'000'001'000, 5'000'002'000);
    trace.add_virtual_span("virtual", "communication", 0.25, 0.5);
    trace.add_virtual_span("nothing", "communication", 0.5, 0.5);
    ranks.push_back(trace.serialise());
  }
  const nlohmann::json events = exported(ranks);
  std::map<int, std::string> process;
  std::map<int, int> place;
  for (const auto& event : events) {
    if (event["name"] == "process_name") process[event["pid"]] = event["args"]["name"];
    if (event["name"] == "process_sort_index") place[event["args"]["sort_index"]] = event["pid"];
  }
  std::vector<std::string> from_above;
  for (const auto& [index, pid] : place) from_above.push_back(process.at(pid));
  EXPECT_EQ(from_above, (std::vector<std::string>{"rank 0", "rank 0, virtual time", "rank 1", "rank 1, virtual time"}));
  for (const auto& event : events) {
    if (event["ph"] != "X") continue;
    const bool is_virtual = event["name"] == "virtual";
    EXPECT_EQ(process.at(event["pid"]).find("virtual") != std::string::npos, is_virtual);
    EXPECT_EQ(event["ts"], is_virtual ? 250'000.0 : 1.0);
    EXPECT_EQ(event["dur"], is_virtual ? 250'000.0 : 1.0);
  }
  EXPECT_EQ(rows_of(events, "rank 1, virtual time").size(), 1u);
}

TEST(Trace, ExportsAllRanksAsChromeEvents) {
  std::vector<std::string> ranks;
  for (const int rank : {0, 1}) {
    Trace trace(rank);
    trace.set_origin(1'000'000);
    trace.add_span("quote \" and \xff", "compute", 3'000'000, 3'500'500);
    trace.add_span("all_reduce", "communication", 4'000'000, 4'000'000);
    trace.add_counter("memory", {{"parameters", 64}, {"gradients", 128}});
    ranks.push_back(trace.serialise());
  }
  std::map<int, std::map<std::string, int>> thread_of;
  std::map<std::string, int> phases;
  const nlohmann::json events = exported(ranks);
  for (const auto& event : events) {
    ++phases[event["ph"]];
    if (event["name"] == "process_name") {
      EXPECT_EQ(event["args"]["name"], fmt::format("rank {}", event["pid"].get<int>()));
    } else if (event["name"] == "thread_name") {
      thread_of[event["pid"]][event["args"]["name"]] = event["tid"];
    } else if (event["ph"] == "X") {
      EXPECT_EQ(event["tid"], thread_of[event["pid"]][event["cat"]]);
    }
  }
  EXPECT_EQ(phases, (std::map<std::string, int>{{"M", 8}, {"X", 4}, {"C", 2}}));
  EXPECT_NE(thread_of[1]["compute"], thread_of[1]["communication"]);
  const auto span = *std::find_if(events.begin(), events.end(), [](auto& event) { return event["ph"] == "X"; });
  EXPECT_EQ(span["ts"], 2000.0);
  EXPECT_EQ(span["dur"], 500.5);
}

TEST(Trace, AnEmptyTraceIsValidToo) { EXPECT_EQ(exported({Trace(4).serialise()}).size(), 2u); }

}  // namespace
}  // namespace ninefold
