#include "common/base/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "common/base/check.h"
#include "common/base/config_file.h"
#include "common/base/nearest.h"

namespace ninefold {
namespace {

template <typename T>
T parse_number(std::string_view name, std::string_view text, const NumberRule& rule) {
  if constexpr (std::is_unsigned_v<T>) {
    // A negative number is a number, and the sentence should say that it is too small.
    if (text.starts_with('-')) return static_cast<T>(parse_number<int64_t>(name, text, {.minimum = 0}));
  }
  constexpr std::string_view kind = std::is_integral_v<T> ? "whole number" : "number";
  T value{};
  const char* const text_end = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), text_end, value);
  require(error != std::errc::invalid_argument && end == text_end, "{} needs a {}{}, not '{}'", name, kind,
          rule.may_be_auto ? " or auto" : "", text);
  require(error != std::errc::result_out_of_range, "{} ({}) is beyond what the option can hold", name, text);
  if constexpr (std::is_floating_point_v<T>) require(std::isfinite(value), "{} ({}) must be finite", name, text);

  const std::string unit = rule.unit.empty() ? "" : fmt::format(" {}", rule.unit);
  const double number = static_cast<double>(value);
  require(number >= rule.minimum, "{} ({}) must be at least {}{}", name, text, rule.minimum, unit);
  require(number <= rule.maximum, "{} ({}) must be at most {}{}", name, text, rule.maximum, unit);
  return value;
}

// Through the shortest text, so that 0.9f is written as 0.9 and not as 0.8999999761581421.
template <typename T>
nlohmann::ordered_json number_as_json(T value) {
  if constexpr (std::is_floating_point_v<T>) return std::stod(fmt::format("{}", value));
  return value;
}

bool parse_flag(std::string_view name, std::string_view text) {
  require(text == "true" || text == "false", "{} must be true or false, not '{}'", name, text);
  return text == "true";
}

class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter() { column_width(34); }
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override {
    return CLI::detail::find_and_replace(Formatter::make_help(app, name, mode), "\n\n\n", "\n\n");
  }
  std::string make_option_name(const CLI::Option* option, bool) const override {
    std::vector<std::string> names;
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    return fmt::format("{}", fmt::join(names, ", "));
  }
};

// "--learning-rate" -> "--lr"
std::string abbreviation(std::string_view name) {
  std::string initials = "--";
  for (size_t i = 2; i < name.size(); ++i) {
    if (name[i - 1] == '-' || name[i - 1] == '_') initials += name[i];
  }
  return initials;
}

}  // namespace

struct Options::Entry {
  std::string name;  // with dashes
  CLI::Option* option;
  std::function<void(std::string_view)> set;  // throws UserError
  std::function<nlohmann::ordered_json()> value;
  bool given = false;
};

struct Options::State {
  CLI::App app;
  std::string group = "Options";
  std::vector<std::unique_ptr<Entry>> entries;
  std::string config;
};

Options::Options(std::string_view program, std::string_view description) : state_(std::make_unique<State>()) {
  CLI::App& app = state_->app;
  app.name(std::string(program));
  app.description(std::string(description));
  app.formatter(std::make_shared<HelpFormatter>());
  app.allow_extras();
  app.set_help_flag("-h,--help", "this text")->group("General");
  group("General");
  add("--config", state_->config, "file of lines 'key = value' for any of these options; options override it");
}

Options::~Options() = default;

void Options::group(std::string_view heading) { state_->group = heading; }

Options::Entry& Options::declare(std::string_view name, std::string_view placeholder, std::string_view help) {
  const std::string with_short_form(name);
  name.remove_prefix(name.rfind(',') + 1);
  expect(name.starts_with("--") && !find(name), "option {} is declared twice or without dashes", name);
  CLI::Option* option = placeholder.empty() ? state_->app.add_flag(fmt::format("{0},!--no-{1}", name, name.substr(2)))
                                            : state_->app.add_option(with_short_form);
  option->group(state_->group)->description(std::string(help))->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  if (!placeholder.empty()) option->option_text(std::string(placeholder));
  state_->entries.push_back(std::make_unique<Entry>());
  Entry& entry = *state_->entries.back();
  entry.name = name;
  entry.option = option;
  return entry;
}

template <typename T>
void Options::add(std::string_view name, T& value, std::string_view help, NumberRule rule) {
  const auto is_auto = [&value, rule] { return rule.may_be_auto && value == static_cast<T>(automatic); };
  const std::string unit = rule.unit.empty() ? "" : fmt::format(" {}", rule.unit);
  const std::string standard = is_auto() ? "auto" : fmt::format("{}{}", value, unit);
  Entry& entry = declare(name, std::is_integral_v<T> ? "N" : "X", fmt::format("{} [{}]", help, standard));
  entry.set = [&value, rule, name = entry.name](std::string_view text) {
    value = rule.may_be_auto && text == "auto" ? static_cast<T>(automatic) : parse_number<T>(name, text, rule);
  };
  entry.value = [&value, is_auto] {
    return is_auto() ? nlohmann::ordered_json("auto") : nlohmann::ordered_json(number_as_json(value));
  };
}

template void Options::add(std::string_view, int&, std::string_view, NumberRule);
template void Options::add(std::string_view, int64_t&, std::string_view, NumberRule);
template void Options::add(std::string_view, uint64_t&, std::string_view, NumberRule);
template void Options::add(std::string_view, float&, std::string_view, NumberRule);
template void Options::add(std::string_view, double&, std::string_view, NumberRule);

void Options::add(std::string_view name, std::string& value, std::string_view help) {
  Entry& entry = declare(name, "TEXT", value.empty() ? std::string(help) : fmt::format("{} [{}]", help, value));
  entry.set = [&value](std::string_view text) { value = text; };
  entry.value = [&value] { return value; };
}

void Options::add(std::string_view name, bool& value, std::string_view help) {
  Entry& entry = declare(name, "", fmt::format("{} [{}]", help, value ? "on" : "off"));
  entry.set = [&value, name = entry.name](std::string_view text) { value = parse_flag(name, text); };
  entry.value = [&value] { return value; };
}

void Options::add_words(std::string_view name, std::vector<std::string> words, std::string_view help,
                        std::function<void(size_t)> set, std::function<size_t()> get) {
  const std::string described = fmt::format("{}: {} [{}]", help, fmt::join(words, ", "), words.at(get()));
  Entry& entry = declare(name, "WORD", described);
  entry.set = [words, set, name = entry.name](std::string_view text) {
    const auto found = std::find(words.begin(), words.end(), text);
    require(found != words.end(), "{} must be one of {}, not '{}'; did you mean {}?", name, fmt::join(words, ", "),
            text, nearest(text, words));
    set(found - words.begin());
  };
  entry.value = [words, get] { return words.at(get()); };
}

void Options::add_choice(std::string_view name, std::string& value, const std::vector<std::string>& choices,
                         std::string_view help) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const std::string& choice : choices) pairs.emplace_back(choice, choice);
  add_choice<std::string>(name, value, std::move(pairs), help);
}

std::optional<std::string> Options::parse(int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--help" || argument == "-h") return state_->app.help();
  }
  read_command_line(argc, argv);
  if (!state_->config.empty()) read_file(state_->config);
  return std::nullopt;
}

void Options::read_command_line(int argc, const char* const* argv) {
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  try {
    state_->app.parse(arguments);
  } catch (const CLI::ArgumentMismatch&) {
    throw UserError(fmt::format("{} needs a value", argv[argc - 1]));  // only the last can lack one
  } catch (const CLI::Error& error) {
    throw UserError(fmt::format("the options cannot be read: {}; --help lists them", error.what()));
  }
  for (auto& entry : state_->entries) {
    if (entry->option->empty()) continue;
    const std::string text = entry->option->results().back();
    require(!text.starts_with("--"), "{} needs a value, but the option {} follows", entry->name, text);
    entry->set(text);
    entry->given = true;
  }
  refuse_unknown(state_->app.remaining());
}

void Options::refuse_unknown(const std::vector<std::string>& arguments) const {
  if (arguments.empty()) return;
  const std::string name = arguments.front().substr(0, arguments.front().find('='));
  require(!name.starts_with("-"), "unknown option {}; did you mean {}?", name, nearest_name(name));
  throw UserError(fmt::format("'{}' is not an option; options begin with --, and --help lists them", name));
}

void Options::read_file(const std::string& path) {
  std::set<std::string> seen;
  for (const auto& [number, key, text] : read_config(path)) {
    const std::string place = fmt::format("{}, line {}", path, number);
    Entry* entry = find("--" + key);
    require(entry && key != "config", "{}: unknown key '{}'; did you mean {}?", place, key,
            nearest_name("--" + key).substr(2));
    require(seen.insert(key).second, "{}: the key '{}' appears a second time", place, key);
    if (entry->given) continue;
    try {
      entry->set(text);
    } catch (const UserError& error) {
      throw UserError(fmt::format("{}: {}", place, error.what()));
    }
  }
  for (const std::string& key : seen) find("--" + key)->given = true;
}

Options::Entry* Options::find(std::string_view name) const {
  for (auto& entry : state_->entries) {
    if (entry->name == name) return entry.get();
  }
  return nullptr;
}

std::string Options::nearest_name(std::string_view name) const {
  if (const std::string initials = abbreviation(name); find(initials)) return initials;
  std::vector<std::string> names = {"--help"};
  for (const auto& entry : state_->entries) {
    for (const std::string& known : entry->option->get_lnames()) names.push_back("--" + known);
  }
  return nearest(name, names);
}

bool Options::given(std::string_view name) const {
  const Entry* entry = find(name);
  expect(entry != nullptr, "option {} is not declared", name);
  return entry->given;
}

std::vector<std::string> Options::given_under(std::string_view heading) const {
  std::vector<std::string> names;
  for (const auto& entry : state_->entries) {
    if (entry->given && entry->option->get_group() == heading) names.push_back(entry->name);
  }
  return names;
}

nlohmann::ordered_json Options::values() const {
  auto values = nlohmann::ordered_json::object();
  for (const auto& entry : state_->entries) values[entry->name.substr(2)] = entry->value();
  return values;
}

}  // namespace ninefold
