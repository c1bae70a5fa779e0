#include "common/base/trace.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "common/base/report.h"

namespace ninefold {
namespace {

using Json = nlohmann::ordered_json;

// The process of a rank's virtual time has a number that no rank has.
constexpr int virtual_process = 1 << 24;

Json metadata(int process, int thread, const char* what, const Json& arguments) {
  return {{"name", what}, {"ph", "M"}, {"pid", process}, {"tid", thread}, {"args", arguments}};
}

// Chrome's unit is the microsecond.
double microseconds(int64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e3; }

// Names may come from files; what is not UTF-8 must not stop the export.
std::string text_of(const Json& event) { return event.dump(-1, ' ', false, Json::error_handler_t::replace); }

// Which line of its category a span is drawn on: viewers need those of one line to lie within or beside each other.
// Spans come in the order of their beginnings, of two the longer one first.
class Lines {
 public:
  // Counts from 0.
  size_t line_of(const Trace::SpanEvent& span) {
    std::vector<std::vector<int64_t>>& lines = open_ends_[span.category];
    size_t line = 0;
    for (; line < lines.size(); ++line) {
      std::vector<int64_t>& ends = lines[line];
      while (!ends.empty() && ends.back() <= span.begin) ends.pop_back();
      if (ends.empty() || span.end <= ends.back()) break;
    }
    if (line == lines.size()) lines.emplace_back();
    lines[line].push_back(span.end);
    return line;
  }

 private:
  std::map<std::string, std::vector<std::vector<int64_t>>> open_ends_;
};

// One process of the export.
struct Process {
  int number;
  std::string name;
  int place;  // among the processes, from above
};

void add_spans(std::vector<std::string>& events, const Process& process, std::vector<Trace::SpanEvent> spans,
               int64_t origin) {
  events.push_back(text_of(metadata(process.number, 0, "process_name", {{"name", process.name}})));
  events.push_back(text_of(metadata(process.number, 0, "process_sort_index", {{"sort_index", process.place}})));
  std::stable_sort(spans.begin(), spans.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, -a.end) < std::pair(b.begin, -b.end);
  });
  Lines lines;
  std::vector<std::string> threads;
  for (const Trace::SpanEvent& span : spans) {
    const size_t line = lines.line_of(span);
    const std::string name = line == 0 ? span.category : fmt::format("{} {}", span.category, line + 1);
    const auto found = std::find(threads.begin(), threads.end(), name);
    const int thread = static_cast<int>(found - threads.begin());
    if (found == threads.end()) {
      threads.push_back(name);
      events.push_back(text_of(metadata(process.number, thread, "thread_name", {{"name", name}})));
    }
    events.push_back(text_of({{"name", span.name},
                              {"cat", span.category},
                              {"ph", "X"},
                              {"pid", process.number},
                              {"tid", thread},
                              {"ts", microseconds(span.begin - origin)},
                              {"dur", microseconds(span.end - span.begin)}}));
  }
}

}  // namespace

Trace::Trace(int rank) : rank_(rank), origin_(now()) {}

int64_t Trace::now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

void Trace::add_span(std::string name, std::string_view category, int64_t begin, int64_t end) {
  spans_.push_back({std::move(name), std::string(category), begin, end});
}

void Trace::add_virtual_span(std::string name, std::string_view category, double begin, double end) {
  const int64_t from = std::llround(begin * 1e9), to = std::llround(end * 1e9);
  if (from < to) virtual_spans_.push_back({std::move(name), std::string(category), from, to});
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
  std::vector<std::string> events;
  add_spans(events, {rank_, fmt::format("rank {}", rank_), 2 * rank_}, spans_, origin_);
  if (!virtual_spans_.empty()) {
    add_spans(events, {virtual_process + rank_, fmt::format("rank {}, virtual time", rank_), 2 * rank_ + 1},
              virtual_spans_, 0);
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
