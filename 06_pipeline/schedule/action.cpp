#include "06_pipeline/schedule/action.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "common/base/check.h"

namespace ninefold::pipeline {
namespace {

constexpr size_t most_digits = 6;  // of a stage or a micro-batch

std::string_view take_digits(std::string_view& text) {
  const std::string_view digits = text.substr(0, std::min(text.find_first_not_of("0123456789"), text.size()));
  text.remove_prefix(digits.size());
  return digits;
}

int number(std::string_view digits, std::string_view what, std::string_view text, std::string_view place) {
  require(!digits.empty(), "{}: '{}' names no {}; an action is written like 2F5: stage, letter, micro-batch", place,
          text, what);
  require(digits.size() <= most_digits, "{}: the {} of '{}' has more than {} digits", place, what, text, most_digits);
  int value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return value;
}

Kind kind_of(std::string_view word, std::string_view text, std::string_view place) {
  require(!word.starts_with("SEND_") && !word.starts_with("RECV_"),
          "{}: '{}' is not needed: sends and receives follow from the table", place, text);
  const auto found = std::find(kind_names.begin(), kind_names.end(), word);
  require(found != kind_names.end(), "{}: '{}' has the unknown letter '{}'; there are {}", place, text, word,
          fmt::join(kind_names, ", "));
  return static_cast<Kind>(found - kind_names.begin());
}

}  // namespace

std::string text_of(const Action& action) {
  if (action.is_of_whole_stage()) return fmt::format("{}{}", action.stage, name_of(action.kind));
  return fmt::format("{}{}{}", action.stage, name_of(action.kind), action.micro_batch);
}

Action parse_action(std::string_view text, std::string_view place) {
  std::string_view rest = text;
  Action action;
  action.stage = number(take_digits(rest), "stage", text, place);
  const std::string_view word = rest.substr(0, std::min(rest.find_first_of("0123456789"), rest.size()));
  rest.remove_prefix(word.size());
  action.kind = kind_of(word, text, place);
  const std::string_view digits = take_digits(rest);
  require(rest.empty(), "{}: '{}' goes on after the action {}", place, text, text.substr(0, text.size() - rest.size()));
  if (action.is_of_whole_stage()) {
    require(digits.empty(), "{}: '{}' names a micro-batch, but {} is of the whole stage", place, text, word);
  } else {
    action.micro_batch = number(digits, "micro-batch", text, place);
  }
  return action;
}

}  // namespace ninefold::pipeline
