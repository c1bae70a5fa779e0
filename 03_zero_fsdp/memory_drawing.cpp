#include "03_zero_fsdp/memory_drawing.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "common/base/report.h"

namespace ninefold {
namespace {

// In pixels.
constexpr double left = 66, plot = 640, right = 80, top = 62, row_height = 34, bar_height = 24;

// Parameters, gradients, optimizer, activations, gathered, host.
constexpr const char* colours[] = {"#3867c9", "#c2700f", "#218a54", "#a2124a", "#9db7ec", "#b0b0b0"};

std::string bytes_text(double bytes) { return bytes > 0 ? human_bytes(bytes) : "-"; }

std::string legend(const std::vector<std::string>& kinds) {
  std::string text;
  double x = left;
  for (size_t kind = 0; kind < kinds.size(); ++kind, x += 110) {
    text += fmt::format(R"(<rect x="{}" y="34" width="12" height="12" fill="{}"/><text x="{}" y="45">{}</text>)", x,
                        colours[kind], x + 18, kinds[kind]);
    text += '\n';
  }
  return text;
}

// `scale`: pixels a byte.
std::string bar(double y, const std::vector<double>& bytes, double scale) {
  std::string text;
  double x = left;
  for (size_t kind = 0; kind < bytes.size(); ++kind) {
    text += fmt::format(R"(<rect x="{:.1f}" y="{}" width="{:.1f}" height="{}" fill="{}"/>)", x, y, bytes[kind] * scale,
                        bar_height, colours[kind]);
    text += '\n';
    x += bytes[kind] * scale;
  }
  const double total = std::accumulate(bytes.begin(), bytes.end(), 0.0);
  return text + fmt::format("<text x=\"{:.1f}\" y=\"{}\">{}</text>\n", x + 6, y + 16, human_bytes(total));
}

}  // namespace

double MemoryAccount::total(size_t stage) const {
  return std::accumulate(bytes[stage].begin(), bytes[stage].end(), 0.0);
}

std::string MemoryAccount::table() const {
  std::vector<std::string> heads = {"stage"};
  heads.insert(heads.end(), kinds.begin(), kinds.end());
  heads.emplace_back("together");
  Table table(heads);
  for (size_t stage = 0; stage < bytes.size(); ++stage) {
    std::vector<std::string> row = {fmt::format("{}", stage)};
    for (const double one : bytes[stage]) row.push_back(bytes_text(one));
    row.push_back(bytes_text(total(stage)));
    table.add_row(row);
  }
  return table.text();
}

std::string MemoryAccount::svg() const {
  double most = 1;
  for (size_t stage = 0; stage < bytes.size(); ++stage) most = std::max(most, total(stage));
  const double width = left + plot + right, height = top + row_height * static_cast<double>(bytes.size()) + 6;
  std::string text = fmt::format(
      R"(<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}" font-family="sans-serif" font-size="12">
<rect width="{0}" height="{1}" fill="white"/>
<text x="10" y="20" font-size="14">{2}</text>
)",
      width, height, title);
  text += legend(kinds);
  for (size_t stage = 0; stage < bytes.size(); ++stage) {
    const double y = top + row_height * static_cast<double>(stage);
    text += fmt::format("<text x=\"10\" y=\"{}\">stage {}</text>\n", y + 16, stage);
    text += bar(y, bytes[stage], plot / most);
  }
  return text + "</svg>\n";
}

}  // namespace ninefold
