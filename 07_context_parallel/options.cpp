#include "07_context_parallel/options.h"

#include "common/base/check.h"

namespace ninefold {

void ContextParallelOptions::declare(Options& options) {
  std::vector<std::pair<std::string, ContextLayout>> names;
  for (const auto& [one, name] : layouts) names.emplace_back(name, one);
  options.add_choice<ContextLayout>("--layout", layout, names,
                                    "which positions a rank holds, and how it comes to all keys");
  options.add("--ulysses", ulysses, "of hybrid: neighbours that exchange heads; 0: two", {.minimum = 0});
  options.add("--overlap", ring.overlap, "blocks of the ring travel while the one before is computed");
  options.add_choice<Dtype>("--merge-dtype", ring.merge, {{"f32", Dtype::f32}, {"bf16", Dtype::bf16}},
                            "in which the ring adds up the parts of attention's result");
}

void ContextParallelOptions::validate(const Options& given, int ranks) const {
  for (const char* name : {"--layout", "--ulysses", "--overlap", "--merge-dtype"}) {
    require(ranks > 1 || !given.given(name), "{} is for sequences that ranks share, but --cp is 1; add --cp 2", name);
  }
}

}  // namespace ninefold
