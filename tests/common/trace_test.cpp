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
  EXPECT_EQ(phases, (std::map<std::string, int>{{"M", 6}, {"X", 4}, {"C", 2}}));
  EXPECT_NE(thread_of[1]["compute"], thread_of[1]["communication"]);
  const auto span = *std::find_if(events.begin(), events.end(), [](auto& event) { return event["ph"] == "X"; });
  EXPECT_EQ(span["ts"], 2000.0);
  EXPECT_EQ(span["dur"], 500.5);
}

TEST(Trace, AnEmptyTraceIsValidToo) { EXPECT_EQ(exported({Trace(4).serialise()}).size(), 1u); }

}  // namespace
}  // namespace ninefold
