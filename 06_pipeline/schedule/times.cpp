#include "06_pipeline/schedule/times.h"

#include <charconv>
#include <cmath>

#include "common/base/check.h"

namespace ninefold::pipeline {
namespace {

constexpr std::string_view blanks = " \t\r";

std::vector<double> parse_numbers(std::string_view line, const std::string& place) {
  std::vector<double> numbers;
  for (size_t begin = line.find_first_not_of(blanks); begin != line.npos; begin = line.find_first_not_of(blanks)) {
    line.remove_prefix(begin);
    const std::string_view word = line.substr(0, line.find_first_of(blanks));
    double value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    require(error == std::errc() && end == word.data() + word.size() && std::isfinite(value) && value >= 0,
            "{}: '{}' is not a time; write a number from 0", place, word);
    numbers.push_back(value);
    line.remove_prefix(word.size());
  }
  return numbers;
}

}  // namespace

std::vector<StageTimes> parse_times(std::string_view content, std::string_view name) {
  std::vector<StageTimes> stages;
  for (int number = 1; !content.empty(); ++number) {
    const size_t end = content.find('\n');
    const std::string_view line = content.substr(0, end);
    content.remove_prefix(end == content.npos ? content.size() : end + 1);
    const std::string place = fmt::format("{}, line {}", name, number);
    const std::vector<double> numbers = parse_numbers(line.substr(0, line.find('#')), place);
    if (numbers.empty()) continue;
    require(numbers.size() == 3, "{} has {} numbers; a stage has three: forward, input gradient, weight gradient",
            place, numbers.size());
    stages.push_back({numbers[0], numbers[1], numbers[2]});
    require(stages.back().sum() > 0, "{}: a stage must take some time", place);
  }
  require(!stages.empty(), "{} holds no times; write a line 'forward input_gradient weight_gradient' a stage", name);
  return stages;
}

std::string text_of(const std::vector<StageTimes>& stages) {
  std::string text = "# forward input_gradient weight_gradient, a line a stage\n";
  for (const StageTimes& stage : stages) {
    text += fmt::format("{} {} {}\n", stage.forward, stage.input_gradient, stage.weight_gradient);
  }
  return text;
}

}  // namespace ninefold::pipeline
