#include "09_combined_3d/comparison/page.h"

#include <nlohmann/json.hpp>

#include "09_combined_3d/comparison/write.h"
#include "common/base/check.h"
#include "common/base/mapped_file.h"

namespace ninefold::comparison {
namespace {

constexpr const char* chart_js = "/usr/share/javascript/chart.js/chart.min.js";
constexpr const char* page = NINEFOLD_ROOT "/09_combined_3d/comparison/page.html";

std::string content_of(const char* path) { return std::string(MappedFile(path).bytes()); }

void replace(std::string& text, std::string_view mark, const std::string& by) {
  const size_t place = text.find(mark);
  expect(place != std::string::npos, "{} has no {}", page, mark);
  text.replace(place, mark.size(), by);
}

// No text in it ends the script that it stands in.
std::string as_script(const nlohmann::ordered_json& json) {
  std::string text = json.dump();
  for (size_t place = 0; (place = text.find("</", place)) != std::string::npos;) text.replace(place, 2, "<\\/");
  return text;
}

}  // namespace

void require_page_parts() {
  try {
    content_of(chart_js);
  } catch (const UserError&) {
    throw UserError(
        fmt::format("--html draws with Chart.js, and {} is not there: install the package libjs-chart.js", chart_js));
  }
  content_of(page);
}

std::string page_of(const Results& results) {
  std::string text = content_of(page);
  replace(text, "/*DATA*/", as_script(json_of(results)));
  replace(text, "/*CHART.JS*/", content_of(chart_js));
  return text;
}

}  // namespace ninefold::comparison
