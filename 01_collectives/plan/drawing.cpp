#include "01_collectives/plan/drawing.h"

#include <fmt/format.h>

#include <algorithm>

namespace ninefold::collectives {
namespace {

// In pixels.
constexpr int cell_height = 22, row_height = 34, gap = 64, left = 50, top = 30;

class Drawing {
 public:
  Drawing(Operation operation, const Simulation& simulation)
      : operation_(operation),
        simulation_(simulation),
        ranks_(static_cast<int>(simulation.held[0].size())),
        columns_(columns_of(operation, simulation)),
        cell_width_(Call{.operation = operation}.reduces() ? std::max(24, 5 * ranks_) : 18) {}

  std::string text() {
    const int steps = static_cast<int>(simulation_.messages.size());
    const int width = panel_x(steps) + columns_ * cell_width_ + 10, height = row_y(ranks_ - 1) + cell_height + 10;
    add(R"(<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}")"
        R"( font-family="sans-serif" font-size="12">)",
        width, height);
    add(R"(<rect width="{}" height="{}" fill="white"/>)", width, height);
    add(R"(<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">)"
        R"(<path d="M0 0L8 4L0 8z" fill="#555"/></marker>)");
    for (int rank = 0; rank < ranks_; ++rank) {
      add(R"(<text x="4" y="{}">rank {}</text>)", row_y(rank) + 15, rank);
    }
    for (int step = 0; step <= steps; ++step) add_panel(step);
    for (int step = 0; step < steps; ++step) {
      for (const Message& message : simulation_.messages[step]) add_arrow(step, message);
    }
    add("</svg>");
    return text_;
  }

 private:
  template <typename... Args>
  void add(fmt::format_string<Args...> line, Args&&... args) {
    text_ += fmt::format(line, std::forward<Args>(args)...) + "\n";
  }

  int panel_x(int step) const { return left + step * (columns_ * cell_width_ + gap); }
  static int row_y(int rank) { return top + rank * row_height; }
  std::string colour(int rank) const { return fmt::format("hsl({},65%,60%)", rank * 360 / ranks_); }

  void add_panel(int step) {
    const int x = panel_x(step);
    add(R"(<text x="{}" y="18">{}</text>)", x, step == 0 ? "start" : fmt::format("step {}", step));
    for (int rank = 0; rank < ranks_; ++rank) {
      for (int column = 0; column < columns_; ++column) fill_cell(step, rank, column);
    }
    for (const bool heavy : {false, true}) add_frames(step, heavy);
  }

  void fill_cell(int step, int rank, int column) {
    const int x = panel_x(step) + column * cell_width_, y = row_y(rank);
    const int chunk = chunk_in_column(operation_, rank, column, ranks_);
    const Version& version = simulation_.held[step][rank][chunk];
    const bool is_sum = Call{.operation = operation_}.reduces();
    for (const int contributor : version) {
      const double width = is_sum ? static_cast<double>(cell_width_) / ranks_ : cell_width_;
      add(R"(<rect x="{:.1f}" y="{}" width="{:.1f}" height="{}" fill="{}"/>)", x + (is_sum ? contributor * width : 0),
          y, width, cell_height, colour(contributor));
    }
  }

  // Heavy ones last, so that no neighbour covers them.
  void add_frames(int step, bool heavy) {
    for (int rank = 0; rank < ranks_; ++rank) {
      for (int column = 0; column < columns_; ++column) {
        const int chunk = chunk_in_column(operation_, rank, column, ranks_);
        const bool is_changed =
            step > 0 && simulation_.held[step - 1][rank][chunk] != simulation_.held[step][rank][chunk];
        if (is_changed != heavy) continue;
        add(R"(<rect x="{}" y="{}" width="{}" height="{}" fill="none" stroke="{}" stroke-width="{}"/>)",
            panel_x(step) + column * cell_width_, row_y(rank), cell_width_, cell_height, heavy ? "black" : "#aaa",
            heavy ? 2.5 : 1);
      }
    }
  }

  void add_arrow(int step, const Message& message) {
    const int from_x = panel_x(step + 1) - gap + 5, to_x = panel_x(step + 1) - 5;
    const int from_y = row_y(message.from) + cell_height / 2, to_y = row_y(message.to) + cell_height / 2;
    add(R"svg(<path d="M{} {}L{} {}" stroke="#555" marker-end="url(#head)"/>)svg", from_x, from_y, to_x, to_y);
    if (operation_ == Operation::all_to_all) return;  // the column tells
    const int chunks = static_cast<int>(simulation_.held[0][0].size());
    add(R"(<text x="{}" y="{}" font-size="10">{}</text>)", from_x + 1, from_y - (to_y < from_y ? -12 : 4),
        name_of(message.chunks, chunks));
  }

  Operation operation_;
  const Simulation& simulation_;
  int ranks_, columns_, cell_width_;
  std::string text_;
};

}  // namespace

std::string drawing(Operation operation, const Simulation& simulation) { return Drawing(operation, simulation).text(); }

int columns_of(Operation operation, const Simulation& simulation) {
  const auto& ranks = simulation.held[0];
  return static_cast<int>(operation == Operation::all_to_all ? ranks.size() : ranks[0].size());
}

int chunk_in_column(Operation operation, int rank, int column, int ranks) {
  return operation == Operation::all_to_all ? chunk_between(column, rank, ranks) : column;
}

std::string name_of(Chunks chunks, int of) {
  if (chunks.count == 1) return fmt::format("c{}", chunks.first);
  return fmt::format("c{}-c{}", chunks.first, (chunks.first + chunks.count - 1) % of);
}

}  // namespace ninefold::collectives
