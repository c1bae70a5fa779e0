// Runs a program under mpirun as a user would, and tells what came of it: exit code, output, and what it left behind.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/base/check.h"

namespace ninefold {

// One mpirun with all its processes. They are known by an environment variable that they inherit.
class Command {
 public:
  // `line`: what follows mpirun's -n in a shell. Ends itself after a minute, with exit code 124.
  Command(int ranks, const std::string& line) : marker_(next_marker()) {
    const std::string shell =
        fmt::format("{}={} exec timeout 60 {} -n {} {} 2>&1", marker_name, marker_, NINEFOLD_MPIEXEC, ranks, line);
    pipe_ = ::popen(shell.c_str(), "r");
    expect(pipe_ != nullptr, "no shell for {}", shell);
  }
  ~Command() {
    if (pipe_) finish();
  }
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  // Reads the output, standard output and error together, until it contains `text` or ends.
  void read_until(std::string_view text) {
    while (output_.find(text) == std::string::npos && read_line()) {
    }
  }

  // Reads to the end; returns the exit code.
  int finish() {
    while (read_line()) {
    }
    const int status = ::pclose(pipe_);
    pipe_ = nullptr;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  const std::string& output() const { return output_; }

  // Those of its processes that run `program`, or all of them.
  std::vector<pid_t> processes(std::string_view program = "") const {
    std::vector<pid_t> found;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      const std::string name = entry.path().filename();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      if (read(entry.path() / "environ").find(fmt::format("{}={}", marker_name, marker_)) == std::string::npos)
        continue;
      const std::string command_line = read(entry.path() / "cmdline");
      if (command_line.substr(0, command_line.find('\0')).ends_with(program)) found.push_back(std::stoi(name));
    }
    return found;
  }

  // Whether all its processes have ended within a few seconds.
  bool left_nothing() const {
    for (int tries = 0; tries < 150; ++tries) {
      if (processes().empty()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return false;
  }

 private:
  static constexpr std::string_view marker_name = "NINEFOLD_TEST_COMMAND";
  static std::string next_marker() {
    static std::atomic<int> count = 0;
    return fmt::format("{}-{}-end", ::getpid(), count++);
  }
  bool read_line() {
    char buffer[4096];
    if (!std::fgets(buffer, sizeof buffer, pipe_)) return false;
    output_ += buffer;
    return true;
  }
  static std::string read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }

  std::string marker_, output_;
  FILE* pipe_;
};

// Calls `run` with every element, four at a time: a launch mostly waits for processes to start and to end.
template <typename Element, typename Run>
void for_each_at_once(const std::vector<Element>& elements, const Run& run) {
  std::atomic<size_t> next = 0;
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (size_t i = next++; i < elements.size(); i = next++) run(elements[i]);
    });
  }
}

// The lines of `text` that begin with `start`.
inline std::vector<std::string> lines_of(const std::string& text, std::string_view start = "") {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with(start)) lines.push_back(line);
  }
  return lines;
}

// A Llama that trains a step in milliseconds; further options may follow.
inline constexpr std::string_view tiny_llama =
    "--dim 32 --layers 2 --heads 4 --kv-heads 2 --ffn 48 --length 16 --batch 12 --steps 4 --no-measure-peak "
    "--data " NINEFOLD_TEST_DATA "/genesis.txt";

}  // namespace ninefold
