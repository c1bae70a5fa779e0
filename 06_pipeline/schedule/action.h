// What a rank of a pipeline does at a time, in the notation of PyTorch's pipelining: stage, letter, micro-batch.
//
//   2F5   the forward of micro-batch 5 on stage 2
//   2I5   the backward's first half: the gradient of the stage's input, which the stage before waits for
//   2W5   its second half: the gradients of the stage's weights, for which nobody waits
//   2B5   both halves at once
//
// and, for stages whose parameters are sharded over data-parallel ranks, without a micro-batch:
//
//   2UNSHARD  2RESHARD   the parameters are gathered, and given back
//   2REDUCE_GRAD         the gradients of all micro-batches are reduced
#pragma once

#include <array>
#include <string>
#include <string_view>

namespace ninefold::pipeline {

enum class Kind { forward, input_gradient, weight_gradient, backward, unshard, reshard, reduce_grad };

inline constexpr std::array<std::string_view, 7> kind_names = {"F", "I", "W", "B", "UNSHARD", "RESHARD", "REDUCE_GRAD"};

constexpr std::string_view name_of(Kind kind) { return kind_names[static_cast<size_t>(kind)]; }

struct Action {
  int stage = 0;
  Kind kind = Kind::forward;
  int micro_batch = 0;  // 0 where the action is of a whole stage

  // UNSHARD, RESHARD, REDUCE_GRAD.
  bool is_of_whole_stage() const { return kind >= Kind::unshard; }
  // Sends the gradient of the stage's input to the stage before.
  bool gives_input_gradient() const { return kind == Kind::input_gradient || kind == Kind::backward; }
  // Adds to the gradients of the stage's weights.
  bool gives_weight_gradient() const { return kind == Kind::weight_gradient || kind == Kind::backward; }

  friend auto operator<=>(const Action&, const Action&) = default;  // NOLINT(modernize-use-nullptr): tidy 14 is wrong
};

// "2F5", "2UNSHARD".
std::string text_of(const Action& action);

// The reverse. `place` begins the sentence of the UserError that is thrown for anything else.
Action parse_action(std::string_view text, std::string_view place);

}  // namespace ninefold::pipeline
