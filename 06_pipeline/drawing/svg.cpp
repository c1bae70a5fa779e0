#include "06_pipeline/drawing/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "06_pipeline/schedule/peak.h"

namespace ninefold::pipeline {
namespace {

// Pixels.
constexpr double left = 70, right = 80, top = 74, row_height = 34, box_height = 28, bottom = 44;
constexpr double mean_box = 24, narrowest = 860, widest = 3200;

struct Style {
  Kind kind;
  std::string_view colour;
  std::string_view meaning;
};

constexpr Style styles[] = {{Kind::forward, "#3867c9", "F forward"},
                            {Kind::input_gradient, "#218a54", "I input gradient"},
                            {Kind::weight_gradient, "#c2700f", "W weight gradient"},
                            {Kind::backward, "#13808a", "B both gradients"}};

// 1, 2 or 5 times a power of ten, so that about ten of them make the whole.
double tick_distance(double whole) {
  const double power = std::pow(10, std::floor(std::log10(whole / 10)));
  for (const double factor : {1, 2, 5}) {
    if (factor * power * 12 >= whole) return factor * power;
  }
  return 10 * power;
}

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '&') {
      result += "&amp;";
    } else if (c == '<') {
      result += "&lt;";
    } else {
      result += c;
    }
  }
  return result;
}

class Drawing {
 public:
  Drawing(const CheckedSchedule& schedule, const Simulation& simulation)
      : schedule_(schedule), simulation_(simulation) {
    double boxes = 0;
    for (const auto& row : simulation.intervals) boxes = std::max(boxes, static_cast<double>(row.size()));
    plot_ = std::clamp(boxes * mean_box, narrowest, widest);
    scale_ = plot_ / simulation.total;
  }

  std::string text(std::string_view title) {
    begin(title);
    legend();
    axis();
    for (int rank = 0; rank < schedule_.ranks(); ++rank) row(rank);
    return text_ + "</svg>\n";
  }

 private:
  template <typename... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    text_ += fmt::format(format, std::forward<Args>(args)...) + '\n';
  }

  double x(double time) const { return left + time * scale_; }
  double y(int rank) const { return top + rank * row_height; }

  void begin(std::string_view title) {
    const double width = left + plot_ + right, height = y(schedule_.ranks()) + bottom;
    line(
        R"svg(<svg xmlns="http://www.w3.org/2000/svg" width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}")svg"
        R"svg( font-family="sans-serif" font-size="12">)svg",
        width, height);
    line(
        R"svg(<defs><pattern id="idle" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">)svg"
        R"svg(<rect width="6" height="6" fill="#f4f1ec"/><rect width="1.5" height="6" fill="#cfc8bd"/></pattern></defs>)svg");
    line(R"svg(<rect width="100%" height="100%" fill="white"/>)svg");
    line(R"svg(<text x="{}" y="24" font-size="16" font-weight="bold">{}</text>)svg", left, escaped(title));
  }

  void legend() {
    double at = left;
    const auto entry = [&](std::string_view fill, std::string_view meaning) {
      line(R"svg(<rect x="{:.1f}" y="38" width="14" height="14" fill="{}"/><text x="{:.1f}" y="50">{}</text>)svg", at,
           fill, at + 20, meaning);
      at += 34 + 7 * static_cast<double>(meaning.size());
    };
    for (const Style& style : styles) {
      if (has(style.kind)) entry(style.colour, style.meaning);
    }
    entry("url(#idle)", "idle (bubble)");
    if (schedule_.stages_of(0).size() > 1) {
      line(R"svg(<text x="{:.1f}" y="50">lighter: the rank's later stages</text>)svg", at);
    }
    line(R"svg(<text x="{:.1f}" y="66">peak live</text>)svg", left + plot_ + 12);
  }

  bool has(Kind kind) const {
    for (int rank = 0; rank < schedule_.ranks(); ++rank) {
      for (const Task& task : schedule_.tasks(rank)) {
        if (task.action.kind == kind) return true;
      }
    }
    return false;
  }

  void axis() {
    const double distance = tick_distance(simulation_.total), end = y(schedule_.ranks());
    for (int i = 0; i * distance <= simulation_.total * (1 + 1e-9); ++i) {
      line(R"svg(<line x1="{0:.1f}" y1="{1:.1f}" x2="{0:.1f}" y2="{2:.1f}" stroke="#999"/>)svg", x(i * distance), end,
           end + 5);
      line(R"svg(<text x="{:.1f}" y="{:.1f}" text-anchor="middle" fill="#555">{}</text>)svg", x(i * distance), end + 19,
           i * distance);
    }
    line(R"svg(<text x="{:.1f}" y="{:.1f}" fill="#555">time</text>)svg", left + plot_ + 12, end + 19);
  }

  void row(int rank) {
    const auto& intervals = simulation_.intervals[rank];
    line(R"svg(<text x="{:.1f}" y="{:.1f}" text-anchor="end">rank {}</text>)svg", left - 10, y(rank) + 19, rank);
    line(R"svg(<rect x="{:.1f}" y="{:.1f}" width="{:.2f}" height="{}" fill="url(#idle)"/>)svg", left, y(rank), plot_,
         box_height);
    const std::vector<int> stages = schedule_.stages_of(rank);
    for (size_t i = 0; i < intervals.size(); ++i) {
      const Action& action = schedule_.tasks(rank)[i].action;
      const auto chunk = std::find(stages.begin(), stages.end(), action.stage) - stages.begin();
      const double share = stages.size() == 1 ? 0 : static_cast<double>(chunk) / static_cast<double>(stages.size() - 1);
      action.is_of_whole_stage() ? mark(rank, action, intervals[i].start) : box(rank, action, intervals[i], share);
    }
    line(R"svg(<text x="{:.1f}" y="{:.1f}">{}</text>)svg", left + plot_ + 12, y(rank) + 19,
         peak_of(schedule_, rank).live);
  }

  // `share`: 0 for the first of the rank's stages, 1 for the last.
  void box(int rank, const Action& action, const Interval& interval, double share) {
    const auto style = std::find_if(std::begin(styles), std::end(styles),
                                    [&](const Style& candidate) { return candidate.kind == action.kind; });
    const double width = (interval.end - interval.start) * scale_;
    const std::string label = fmt::format("{}", action.micro_batch);
    line(
        R"svg(<g><title>{} from {:.6g} to {:.6g}</title><rect x="{:.2f}" y="{:.1f}" width="{:.2f}" height="{}" )svg"
        R"svg(fill="white"/><rect x="{:.2f}" y="{:.1f}" width="{:.2f}" height="{}" fill="{}" fill-opacity="{:.2f}" )svg"
        R"svg(stroke="white" stroke-width="0.8"/>)svg",
        text_of(action), interval.start, interval.end, x(interval.start), y(rank), width, box_height, x(interval.start),
        y(rank), width, box_height, style->colour, 1 - 0.55 * share);
    if (width > 7.5 * static_cast<double>(label.size())) {
      line(R"svg(<text x="{:.2f}" y="{:.1f}" text-anchor="middle" fill="{}">{}</text>)svg",
           x(interval.start) + width / 2, y(rank) + 18.5, share > 0.4 ? "#111" : "white", label);
    }
    line("</g>");
  }

  // What is of a whole stage takes no time: a line.
  void mark(int rank, const Action& action, double time) {
    line(
        R"svg(<line x1="{0:.2f}" y1="{1:.1f}" x2="{0:.2f}" y2="{2:.1f}" stroke="#a2124a" stroke-width="2"><title>{3}</title></line>)svg",
        x(time), y(rank) - 2, y(rank) + box_height + 2, text_of(action));
  }

  const CheckedSchedule& schedule_;
  const Simulation& simulation_;
  double plot_ = 0, scale_ = 1;  // pixels; pixels a unit of time
  std::string text_;
};

}  // namespace

std::string svg_of(const CheckedSchedule& schedule, const Simulation& simulation, std::string_view title) {
  return Drawing(schedule, simulation).text(title);
}

}  // namespace ninefold::pipeline
