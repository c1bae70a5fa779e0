// How long the actions of a pipeline take. Any unit, the same for all.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ninefold::pipeline {

struct StageTimes {
  double forward = 1;
  double input_gradient = 1;
  double weight_gradient = 1;

  // A whole backward takes as long as its halves.
  double backward() const { return input_gradient + weight_gradient; }
  double sum() const { return forward + backward(); }
};

struct Times {
  std::vector<StageTimes> stages;  // in the order of the model
  double communication = 0;        // of one message between ranks: it arrives so much later, and keeps no rank busy
};

// Reads a line for each stage, "forward input_gradient weight_gradient"; "#" begins a comment:
//
//   # F    B    W    in ms
//   18.5 18.1  9.3
//   18.6 18.0  9.4
//
// `name` stands for the file in sentences. Throws UserError that names the line.
std::vector<StageTimes> parse_times(std::string_view content, std::string_view name);

// The reverse, with all digits.
std::string text_of(const std::vector<StageTimes>& stages);

}  // namespace ninefold::pipeline
