// The list of what is compared: every technique of the course and what they make together, each as the mesh and the
// options of the program that trains with it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/options.h"
#include "common/comm/mesh.h"

namespace ninefold::comparison {

// What every row has in common: the model, the global batch, and the type of the numbers.
struct Workload {
  int64_t layers = 8, dim = 256, heads = 8, kv_heads = 8, ffn = 704, vocab = 256;
  int64_t length = 256, batch = 8;       // tokens of a sequence, sequences of all data ranks
  std::string dtype = "f32", data = {};  // data empty: the embedded text
  int64_t seed = 1;

  void declare(Options& options);
  int64_t tokens_per_step() const { return batch * length; }
};

// A row: a program, over a mesh, with the options that make the technique.
struct Technique {
  std::string name;
  std::string program;              // below the build folder: "09_combined_3d/train"
  std::vector<MeshDimension> mesh;  // the dimensions that are larger than one
  std::string options;              // words between spaces
  bool has_experts = false;         // the model's feed-forwards are mixtures of experts
  bool scales = false;              // a line of the scaling figures

  int ranks() const;
  int size(std::string_view dimension) const;  // 1 where the mesh does not have it
  bool is_baseline() const { return mesh.empty(); }
};

// "pp(2) x tp(2)", or "one rank".
std::string mesh_text(const Technique& technique);

// Of a mixture of experts; with half the dense feed-forward's width each, a token's two experts compute what that does.
inline constexpr int experts = 8, experts_of_a_token = 2;

// A technique that these ranks or this model exclude, and why.
struct Misfit {
  std::string name, reason;
};

struct TechniqueList {
  std::vector<Technique> rows;  // baselines of one rank first, each before what is compared with it
  std::vector<Misfit> left_out;
};

// All that fit the ranks; what the model's sizes exclude is told.
TechniqueList techniques_on(int ranks, const Workload& work);

// Whether the technique is what one of the words between the commas of `only` means, in whatever case: a name, or else
// a part of one. All are where it is empty.
bool is_selected(const Technique& technique, const std::string& only);

// Those that are, and the baselines that they need. Throws UserError for a word that means none.
std::vector<Technique> select(const std::vector<Technique>& rows, const std::string& only);

// The arguments of the technique's program: mesh, options, model and batch.
std::vector<std::string> arguments_of(const Technique& technique, const Workload& work);

}  // namespace ninefold::comparison
