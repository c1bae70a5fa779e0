// The timeline of one rank: spans and counters, exported in the Chrome trace event format, which Perfetto and
// chrome://tracing open. One process row a rank, and another one for its virtual time; one thread row a category.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ninefold {

// Collects on one thread. Times are nanoseconds: of the machine's steady clock, or of virtual time.
class Trace {
 public:
  struct SpanEvent {
    std::string name;
    std::string category;
    int64_t begin, end;
  };
  struct CounterEvent {
    std::string name;
    int64_t time;
    std::vector<std::pair<std::string, double>> series;
  };

  explicit Trace(int rank);

  static int64_t now();

  // The moment that becomes time 0 in the export; at first, when the trace was made. Ranks on several machines have
  // several clocks: each calls this with its own `now()` directly after a common barrier.
  void set_origin(int64_t time) { origin_ = time; }

  // `category` chooses the row: "compute", "communication", "wait", "step". Spans that overlap without one being within
  // the other are drawn on lines of their own.
  void add_span(std::string name, std::string_view category, int64_t begin, int64_t end);
  // The same in virtual time, in seconds since its beginning, which is the same moment on all ranks. What takes no time
  // is left out.
  void add_virtual_span(std::string name, std::string_view category, double begin, double end);
  // Values at this moment; several series of one counter are drawn stacked ("memory": parameters, gradients, …).
  void add_counter(std::string name, std::vector<std::pair<std::string, double>> series);

  // What a Span asks for the virtual time, in seconds; absent: its virtual time is not kept.
  std::function<double()> virtual_now;
  // Called at the end of every Span: the place to read counters.
  std::function<void()> after_span;

  // In the order in which they ended.
  const std::vector<SpanEvent>& spans() const { return spans_; }
  const std::vector<SpanEvent>& virtual_spans() const { return virtual_spans_; }
  const std::vector<CounterEvent>& counters() const { return counters_; }

  // Seconds of wall time covered by at least one span of the category, so that nested spans count once.
  double seconds_in(std::string_view category) const;

  // This rank's events as text; `write_trace` puts those of all ranks together.
  std::string serialise() const;

 private:
  int rank_;
  int64_t origin_;
  std::vector<SpanEvent> spans_, virtual_spans_;
  std::vector<CounterEvent> counters_;
};

// Writes the serialised traces of all ranks as one file. Throws UserError where it cannot be written.
void write_trace(const std::string& path, const std::vector<std::string>& ranks);

// The time from its construction to its end, wall and virtual, added to a trace. With nullptr it does nothing, not even
// format its name.
//   Span span(device.trace, "compute", "{} forward", layer_name);
class Span {
 public:
  template <typename... Args>
  Span(Trace* trace, std::string_view category, fmt::format_string<Args...> name, Args&&... args) : trace_(trace) {
    if (!trace_) return;
    name_ = fmt::format(name, std::forward<Args>(args)...);
    category_ = category;
    begin_ = Trace::now();
    if (trace_->virtual_now) virtual_begin_ = trace_->virtual_now();
  }
  ~Span() {
    if (!trace_) return;
    if (trace_->virtual_now) trace_->add_virtual_span(name_, category_, virtual_begin_, trace_->virtual_now());
    trace_->add_span(std::move(name_), category_, begin_, Trace::now());
    if (trace_->after_span) trace_->after_span();
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  Trace* trace_;
  std::string name_;
  std::string_view category_;  // usually a literal; must live as long as the span
  int64_t begin_ = 0;
  double virtual_begin_ = 0;
};

}  // namespace ninefold
