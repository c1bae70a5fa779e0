// Feeds the command line (one argument a line) and the configuration file: each is read or refused with a UserError.
#include <sstream>

#include "common/base/check.h"
#include "common/base/config_file.h"
#include "common/base/options.h"

namespace {

void read_command_line(const std::string& text) {
  int64_t steps = 1;
  double lr = 1;
  bool check = true;
  std::string report, kind = "adamw";
  ninefold::Options options("program", "Reads options.");
  options.add("--steps", steps, "steps", {.minimum = 0, .may_be_auto = true});
  options.add("--lr", lr, "rate");
  options.add("--check", check, "check");
  options.add("--report", report, "file");
  options.add_choice("--optimizer", kind, {"adamw", "sgd"}, "kind");

  std::vector<std::string> arguments = {"program"};
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.find("--c") == 0 && line.find("--check") != 0) continue;  // --config would read any file of the machine
    arguments.push_back(line.c_str());                                 // up to the first zero, as the system passes it
  }
  std::vector<const char*> pointers;
  for (const std::string& argument : arguments) pointers.push_back(argument.c_str());
  options.parse(static_cast<int>(pointers.size()), pointers.data());
}

template <typename Action>
void allow_refusal(Action action) {
  try {
    action();
  } catch (const ninefold::UserError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  allow_refusal([&] { ninefold::parse_config(text, "file"); });
  allow_refusal([&] { read_command_line(text); });
  return 0;
}
