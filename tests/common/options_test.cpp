#include "common/base/options.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "common/base/config_file.h"
#include "common/base/nearest.h"
#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

enum class Colour { red, green };

// A small program's options.
struct Program {
  int64_t steps = 20;
  uint64_t seed = 7;
  int tp = 1;
  double learning_rate = 3e-4;
  float beta1 = 0.9f;
  bool check = true;
  std::string report;
  Colour colour = Colour::red;
  std::string optimizer = "adamw";
  Options options{"train", "Trains a model."};

  Program() {
    options.group("Training");
    options.add("--steps", steps, "optimizer steps", {.minimum = 0});
    options.add("--seed", seed, "of all random numbers");
    options.add("--learning-rate", learning_rate, "at its peak", {.minimum = 0, .maximum = 10, .unit = "per step"});
    options.add("--beta1", beta1, "decay of the first moment", {.minimum = 0, .maximum = 1});
    options.add("--check", check, "compare with the serial model");
    options.group("Mesh");
    options.add("--tp", tp, "tensor-parallel ranks", {.minimum = 1, .may_be_auto = true});
    options.group("Output");
    options.add("--report", report, "JSON file for the report");
    options.add_choice("--colour", colour, {{"red", Colour::red}, {"green", Colour::green}}, "of the bar");
    options.add_choice("--optimizer", optimizer, {"adamw", "adadelta", "sgd"}, "how parameters are updated");
  }

  std::optional<std::string> parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "train");
    return options.parse(static_cast<int>(arguments.size()), arguments.data());
  }
};

std::string refusal(std::vector<const char*> arguments) {
  Program program;
  return sentence_of([&] { program.parse(arguments); });
}

TEST(Options, MayHaveAShortForm) {
  int64_t iterations = 20;
  Options options("bench", "Times something.");
  options.add("-n,--iters", iterations, "calls", {.minimum = 1});
  const char* arguments[] = {"bench", "-n", "3"};
  EXPECT_FALSE(options.parse(3, arguments));
  EXPECT_EQ(iterations, 3);
  EXPECT_TRUE(options.given("--iters"));
}

TEST(Options, ReadsEveryKind) {
  Program program;
  EXPECT_FALSE(
      program.parse({"--steps", "5", "--seed=18446744073709551615", "--learning-rate", "1e-2", "--beta1", ".5",
                     "--no-check", "--report", "out.json", "--colour", "green", "--tp", "auto", "--optimizer", "sgd"}));
  EXPECT_EQ(program.steps, 5);
  EXPECT_EQ(program.seed, ~uint64_t{0});
  EXPECT_EQ(program.learning_rate, 0.01);
  EXPECT_EQ(program.beta1, 0.5f);
  EXPECT_FALSE(program.check);
  EXPECT_EQ(program.report, "out.json");
  EXPECT_EQ(program.colour, Colour::green);
  EXPECT_EQ(program.tp, Options::automatic);
  EXPECT_EQ(program.optimizer, "sgd");
}

TEST(Options, KeepsDefaultsAndKnowsWhatWasGiven) {
  Program program;
  program.parse({"--tp", "1", "--check"});
  EXPECT_EQ(program.steps, 20);
  EXPECT_TRUE(program.check);
  EXPECT_TRUE(program.options.given("--tp"));
  EXPECT_TRUE(program.options.given("--check"));
  EXPECT_FALSE(program.options.given("--steps"));
  EXPECT_THROW(program.options.given("--stepz"), Error);
}

TEST(Options, TheLastOfSeveralCounts) {
  Program program;
  program.parse({"--steps", "1", "--check", "--steps", "2", "--no-check"});
  EXPECT_EQ(program.steps, 2);
  EXPECT_FALSE(program.check);
}

TEST(Options, DumpsEffectiveValuesWithTheirTypes) {
  Program program;
  program.parse({"--steps", "3", "--tp", "auto"});
  const auto values = program.options.values();
  EXPECT_EQ(values.dump(),
            R"({"config":"","steps":3,"seed":7,"learning-rate":0.0003,"beta1":0.9,"check":true,"tp":"auto",)"
            R"("report":"","colour":"red","optimizer":"adamw"})");
}

TEST(Options, HelpGroupsAndShowsDefaultsAndUnits) {
  Program program;
  const auto help = program.parse({"--steps", "wrong", "--help"});
  ASSERT_TRUE(help);
  EXPECT_LT(help->find("\nTraining:\n"), help->find("\nMesh:\n"));
  EXPECT_NE(help->find("optimizer steps [20]"), std::string::npos) << *help;
  EXPECT_NE(help->find("at its peak [0.0003 per step]"), std::string::npos) << *help;
  EXPECT_NE(help->find("--check, --no-check"), std::string::npos) << *help;
  EXPECT_NE(help->find("of the bar: red, green [red]"), std::string::npos) << *help;
  EXPECT_EQ(program.steps, 20);
}

TEST(Options, RefusesInOneSentence) {
  EXPECT_EQ(refusal({"--lerning-rate", "1"}), "unknown option --lerning-rate; did you mean --learning-rate?");
  EXPECT_EQ(refusal({"--no-chekc"}), "unknown option --no-chekc; did you mean --no-check?");
  EXPECT_EQ(refusal({"--tensor_parallel"}), "unknown option --tensor_parallel; did you mean --tp?");
  EXPECT_EQ(refusal({"-x"}), "unknown option -x; did you mean --tp?");
  EXPECT_EQ(refusal({"--learning-rate", "abc"}), "--learning-rate needs a number, not 'abc'");
  EXPECT_EQ(refusal({"--learning-rate", "1x"}), "--learning-rate needs a number, not '1x'");
  EXPECT_EQ(refusal({"--learning-rate", "nan"}), "--learning-rate (nan) must be finite");
  EXPECT_EQ(refusal({"--learning-rate", "11"}), "--learning-rate (11) must be at most 10 per step");
  EXPECT_EQ(refusal({"--steps", "-1"}), "--steps (-1) must be at least 0");
  EXPECT_EQ(refusal({"--steps", "1.5"}), "--steps needs a whole number, not '1.5'");
  EXPECT_EQ(refusal({"--steps", "99999999999999999999"}),
            "--steps (99999999999999999999) is beyond what the option can hold");
  EXPECT_EQ(refusal({"--seed", "-1"}), "--seed (-1) must be at least 0");
  EXPECT_EQ(refusal({"--tp", "all"}), "--tp needs a whole number or auto, not 'all'");
  EXPECT_EQ(refusal({"--tp", "3000000000"}), "--tp (3000000000) is beyond what the option can hold");
  EXPECT_EQ(refusal({"--colour", "gren"}), "--colour must be one of red, green, not 'gren'; did you mean green?");
  EXPECT_EQ(refusal({"--optimizer", "adam"}),
            "--optimizer must be one of adamw, adadelta, sgd, not 'adam'; did you mean adamw?");
  EXPECT_EQ(refusal({"--steps"}), "--steps needs a value");
  EXPECT_EQ(refusal({"--report", "--steps", "3"}), "--report needs a value, but the option --steps follows");
  EXPECT_EQ(refusal({"--steps", "--check"}), "--steps needs a value, but the option --check follows");
  EXPECT_EQ(refusal({"--check=maybe"}), "--check must be true or false, not 'maybe'");
  EXPECT_EQ(refusal({"words"}), "'words' is not an option; options begin with --, and --help lists them");
}

TEST(ConfigFile, GivesOptionsThatTheCommandLineOverrides) {
  const TemporaryFolder folder;
  const std::string path = folder.write("run.toml",
                                        "# a small run\n[training]\nsteps = 8   # of them\n\ncheck=false\n"
                                        "report = \"a # b.json\"\r\nlearning-rate = 0.5\n");
  Program program;
  program.parse({"--steps", "9", "--config", path.c_str()});
  EXPECT_EQ(program.steps, 9);
  EXPECT_EQ(program.learning_rate, 0.5);
  EXPECT_EQ(program.report, "a # b.json");
  EXPECT_FALSE(program.check);
  EXPECT_TRUE(program.options.given("--report"));
  EXPECT_FALSE(program.options.given("--beta1"));
}

TEST(ConfigFile, RefusesInOneSentence) {
  const TemporaryFolder folder;
  const auto refused = [&](std::string_view content) {
    const std::string path = folder.write("f", content);
    return refusal({"--config", path.c_str()}).substr(path.size());
  };
  EXPECT_EQ(refused("\nstep = 1\n"), ", line 2: unknown key 'step'; did you mean steps?");
  EXPECT_EQ(refused("steps 1"), ", line 1: 'steps 1' is not of the form key = value");
  EXPECT_EQ(refused("steps = 1\nsteps = 2"), ", line 2: the key 'steps' appears a second time");
  EXPECT_EQ(refused("steps = one"), ", line 1: --steps needs a whole number, not 'one'");
  EXPECT_EQ(refused("steps ="), ", line 1: --steps needs a whole number, not ''");
  EXPECT_EQ(refused("report = 'x"), ", line 1: the quote ' is not closed");
  EXPECT_EQ(refused("report = 'x' y"), ", line 1: 'y' follows the closing quote; a line holds one value");
  EXPECT_EQ(refused("= 2"), ", line 1: a key is missing before '='");
  EXPECT_EQ(refused("config = other"), ", line 1: unknown key 'config'; did you mean config?");
  const std::string missing = folder.path("none.toml");
  EXPECT_EQ(refusal({"--config", missing.c_str()}),
            "configuration file " + missing + " does not exist; check the path");
  EXPECT_NE(refusal({"--config", folder.path("").c_str()}).find("is a folder"), std::string::npos);
}

TEST(ConfigFile, RandomBytesNeverCrash) {
  std::mt19937 random(1);
  const std::string_view alphabet = "steps = 1\n\"'#[]\0\xff -ab";
  for (int round = 0; round < 1000; ++round) {
    std::string content(random() % 60, ' ');
    for (char& letter : content) letter = alphabet[random() % alphabet.size()];
    try {
      parse_config(content, "file");
    } catch (const UserError&) {
    }
  }
}

TEST(Options, RandomArgumentsNeverCrash) {
  std::mt19937 random(2);
  const std::vector<const char*> words = {"--steps", "--check", "--no-check", "-1", "--", "-", "=",      "--steps=",
                                          "auto",    "--tp",    "--colour",   "",   "3",  "x", "--=--x", "-h=1"};
  for (int round = 0; round < 1000; ++round) {
    Program program;
    std::vector<const char*> arguments(random() % 6);
    for (const char*& argument : arguments) argument = words[random() % words.size()];
    try {
      program.parse(arguments);
    } catch (const UserError&) {
    }
  }
}

TEST(Nearest, CountsEdits) {
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("ab", "ba"), 1);
  EXPECT_EQ(nearest("bath", {"bat", "path", "cow"}), "bat");
  EXPECT_EQ(nearest("x", {}), "");
}

}  // namespace
}  // namespace ninefold
