#include "common/nn/f8_linears.h"

#include "common/nn/linear.h"
#include "common/nn/replace.h"

namespace ninefold {

bool is_at_or_below(const std::string& pattern, const std::string& path) {
  for (size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', dot + 1)) {
    if (matches(pattern, path.substr(0, dot))) return true;
  }
  return matches(pattern, path);
}

void multiply_in_f8(Model& model, const std::string& pattern) {
  if (pattern.empty()) return;
  const std::string& head = model.name_of(model.size() - 1);
  require(!is_at_or_below(pattern, head),
          "f8 layers {} take in {}, whose scores the loss is made of; name layers of the blocks, as layers.*", pattern,
          head);
  bool found = false;
  for_each_layer(model, [&](const std::string& path, Layer& layer) {
    auto* const linear = dynamic_cast<Linear*>(&layer);
    if (!linear || !is_at_or_below(pattern, path)) return;
    expect(!linear->bias, "{} has a bias, whose gradient is made of what is not rounded", path);
    linear->in_f8 = found = true;
  });
  require(found, "f8 layers {} are no linear layers and have none below them; name some, as layers.*.feed_forward",
          pattern);
}

}  // namespace ninefold
