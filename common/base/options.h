// Command-line options that behave alike in every program: grouped help with units and defaults, a configuration file
// for any of them, and one sentence for whatever is wrong. A thin layer on CLI11.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ninefold {

// Which numbers an option takes. Written in place: {.minimum = 1, .unit = "s"}.
struct NumberRule {
  double minimum = -std::numeric_limits<double>::infinity();
  double maximum = std::numeric_limits<double>::infinity();
  std::string_view unit = "";
  bool may_be_auto = false;  // also takes the word "auto", stored as Options::automatic
};

// Declares options, each bound to a variable that holds its default and receives its value. The variables must outlive
// the Options. Names are long and dashed ("--micro-batch"), and may have a short form ("-n,--iterations").
//
//   Options options("train", "Trains a Llama on several ranks.");
//   options.group("Training");
//   options.add("--steps", steps, "optimizer steps", {.minimum = 0});
//   options.add("--check", check, "compare with the serial model");       // --check/--no-check
//   options.add_choice("--dtype", dtype, {{"f32", Dtype::f32}, {"bf16", Dtype::bf16}}, "type of the activations");
//   if (const auto help = options.parse(argc, argv)) { print(*help); return 0; }
class Options {
 public:
  // What a number that may be "auto" holds when it is.
  static constexpr int automatic = -1;

  // Declares --help and --config too.
  Options(std::string_view program, std::string_view description);
  ~Options();
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

  // The options declared from here on stand under this heading in the help.
  void group(std::string_view heading);

  // T is int, int64_t, uint64_t, float or double.
  template <typename T>
  void add(std::string_view name, T& value, std::string_view help, NumberRule rule = {});
  void add(std::string_view name, std::string& value, std::string_view help);
  // A pair of flags: --name and --no-name.
  void add(std::string_view name, bool& value, std::string_view help);

  // One of several words, each standing for a value of T. `value` must hold one of them.
  template <typename T>
  void add_choice(std::string_view name, T& value, std::vector<std::pair<std::string, T>> choices,
                  std::string_view help);
  // One of several words, stored as it is.
  void add_choice(std::string_view name, std::string& value, const std::vector<std::string>& choices,
                  std::string_view help);

  // Reads the command line, then the file that --config names; the command line wins. Returns the text of the help,
  // and reads nothing else, if --help is among the arguments. Throws UserError.
  std::optional<std::string> parse(int argc, const char* const* argv);

  // Whether the option was given explicitly, on the command line or in the file.
  bool given(std::string_view name) const;
  // All options under this heading that were.
  std::vector<std::string> given_under(std::string_view heading) const;

  // Every option with its effective value, by its name without dashes: numbers as numbers, flags as booleans.
  nlohmann::ordered_json values() const;

 private:
  struct Entry;
  Entry& declare(std::string_view name, std::string_view placeholder, std::string_view help);
  Entry* find(std::string_view name) const;
  void add_words(std::string_view name, std::vector<std::string> words, std::string_view help,
                 std::function<void(size_t)> set, std::function<size_t()> get);
  std::string nearest_name(std::string_view name) const;
  void refuse_unknown(const std::vector<std::string>& arguments) const;
  void read_command_line(int argc, const char* const* argv);
  void read_file(const std::string& path);

  struct State;
  std::unique_ptr<State> state_;
};

template <typename T>
void Options::add_choice(std::string_view name, T& value, std::vector<std::pair<std::string, T>> choices,
                         std::string_view help) {
  std::vector<std::string> words;
  std::vector<T> meanings;
  for (auto& [word, meaning] : choices) {
    words.push_back(word);
    meanings.push_back(meaning);
  }
  const auto set = [&value, meanings](size_t index) { value = meanings.at(index); };
  const auto get = [&value, meanings] {
    size_t index = 0;
    while (index < meanings.size() && !(meanings[index] == value)) ++index;
    return index;
  };
  add_words(name, std::move(words), help, set, get);
}

}  // namespace ninefold
