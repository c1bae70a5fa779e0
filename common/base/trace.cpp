#include "common/base/trace.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <nlohmann/json.hpp>

#include "common/base/report.h"

namespace ninefold {
namespace {

using Json = nlohmann::ordered_json;

Json metadata(int rank, int thread, const char* what, const std::string& name) {
  return {{"name", what}, {"ph", "M"}, {"pid", rank}, {"tid", thread}, {"args", {{"name", name}}}};
}

// Chrome's unit is the microsecond.
double microseconds(int64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e3; }

// Names may come from files; what is not UTF-8 must not stop the export.
std::string text_of(const Json& event) { return event.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

Trace::Trace(int rank) : rank_(rank), origin_(now()) {}

int64_t Trace::now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

void Trace::add_span(std::string name, std::string_view category, int64_t begin, int64_t end) {
  spans_.push_back({std::move(name), std::string(category), begin, end});
}

void Trace::add_counter(std::string name, std::vector<std::pair<std::string, double>> series) {
  counters_.push_back({std::move(name), now(), std::move(series)});
}

double Trace::seconds_in(std::string_view category) const {
  std::vector<std::pair<int64_t, int64_t>> intervals;
  for (const SpanEvent& span : spans_) {
    if (span.category == category) intervals.emplace_back(span.begin, span.end);
  }
  std::sort(intervals.begin(), intervals.end());
  int64_t covered = 0;
  int64_t reached = std::numeric_limits<int64_t>::min();
  for (const auto& [begin, end] : intervals) {
    covered += std::max<int64_t>(0, end - std::max(begin, reached));
    reached = std::max(reached, end);
  }
  return static_cast<double>(covered) / 1e9;
}

std::string Trace::serialise() const {
  std::vector<std::string> events = {text_of(metadata(rank_, 0, "process_name", fmt::format("rank {}", rank_)))};
  std::vector<std::string> categories;
  for (const SpanEvent& span : spans_) {
    const auto found = std::find(categories.begin(), categories.end(), span.category);
    const int thread = static_cast<int>(found - categories.begin());
    if (found == categories.end()) {
      categories.push_back(span.category);
      events.push_back(text_of(metadata(rank_, thread, "thread_name", span.category)));
    }
    events.push_back(text_of({{"name", span.name},
                              {"cat", span.category},
                              {"ph", "X"},
                              {"pid", rank_},
                              {"tid", thread},
                              {"ts", microseconds(span.begin - origin_)},
                              {"dur", microseconds(span.end - span.begin)}}));
  }
  for (const CounterEvent& counter : counters_) {
    Json values = Json::object();
    for (const auto& [name, value] : counter.series) values[name] = value;
    events.push_back(text_of({{"name", counter.name},
                              {"ph", "C"},
                              {"pid", rank_},
                              {"ts", microseconds(counter.time - origin_)},
                              {"args", values}}));
  }
  return fmt::format("{}", fmt::join(events, ",\n"));
}

void write_trace(const std::string& path, const std::vector<std::string>& ranks) {
  write_file_atomically(
      path, fmt::format("{{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n{}\n]}}\n", fmt::join(ranks, ",\n")));
}

}  // namespace ninefold
