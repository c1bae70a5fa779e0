#include "06_pipeline/generators/generators.h"

#include <fmt/ranges.h>

#include "06_pipeline/generators/dual_pipe.h"
#include "06_pipeline/generators/gpipe.h"
#include "06_pipeline/generators/interleaved.h"
#include "06_pipeline/generators/one_f_one_b.h"
#include "06_pipeline/generators/zero_bubble.h"
#include "06_pipeline/generators/zero_bubble_v.h"
#include "common/base/check.h"

namespace ninefold::pipeline {
namespace {

template <Schedule (*make)(int ranks, int micro_batches)>
Schedule without_choice(const PipelineSize& size) {
  return make(size.ranks, size.micro_batches);
}

Schedule with_virtual_stages(const PipelineSize& size) {
  return interleaved(size.ranks, size.micro_batches, size.virtual_stages);
}

}  // namespace

const std::vector<Generator>& generators() {
  static const std::vector<Generator> all = {
      {"gpipe", "all forwards, then all backwards", Placement::loop, 1, without_choice<gpipe>},
      {"1f1b", "one forward, one backward: the same bubble, and only as many live micro-batches as stages follow",
       Placement::loop, 1, without_choice<one_f_one_b>},
      {"interleaved", "1F1B over several short stages a rank: a shorter bubble for more messages", Placement::loop, 0,
       with_virtual_stages},
      {"zb-h1", "the weight gradients wait and fill the bubble, within the memory of 1F1B", Placement::loop, 1,
       without_choice<zero_bubble_h1>},
      {"zb-h2", "twice as many early forwards fill the beginning too: no bubble for twice the memory", Placement::loop,
       1, without_choice<zero_bubble_h2>},
      {"zb-v", "two stages a rank, down and up again: no bubble within the memory of 1F1B", Placement::v, 2,
       without_choice<zero_bubble_v>},
      {"dualpipe", "two pipelines against each other over two copies of the model", Placement::twins, 2,
       without_choice<dual_pipe>},
  };
  return all;
}

std::vector<std::string> generator_names() {
  std::vector<std::string> names;
  for (const Generator& generator : generators()) names.emplace_back(generator.name);
  return names;
}

const Generator& find_generator(std::string_view name) {
  for (const Generator& generator : generators()) {
    if (generator.name == name) return generator;
  }
  throw UserError(fmt::format("there is no schedule '{}': there are {}", name, fmt::join(generator_names(), ", ")));
}

}  // namespace ninefold::pipeline
