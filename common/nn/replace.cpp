#include "common/nn/replace.h"

#include <fnmatch.h>

#include <algorithm>

namespace ninefold {
namespace {

// Walks the whole tree and hands every part, with its path, to whichever callback is set.
class Walker : public Visitor {
 public:
  std::function<void(const std::string&, std::unique_ptr<Layer>&)> on_slot;
  std::function<void(const std::string&, std::unique_ptr<AttentionCore>&)> on_core;
  std::function<void(const std::string&, std::unique_ptr<Router>&)> on_router;
  std::function<void(const std::string&, std::unique_ptr<Experts>&)> on_experts;
  std::function<void(const std::string&, Layer&)> on_layer;
  std::function<void(const std::string&, Parameter&)> on_parameter;
  std::function<void(const std::string&, Buffer&)> on_buffer;

  void slot(std::string_view name, std::unique_ptr<Layer>& child) override {
    const Layer* before = child.get();
    if (on_slot) on_slot(path_of(name), child);
    if (child.get() == before) member(name, *child);
  }
  void core(std::string_view name, std::unique_ptr<AttentionCore>& child) override {
    if (on_core) on_core(path_of(name), child);
  }
  void router(std::string_view name, std::unique_ptr<Router>& router) override { enter(name, router, on_router); }
  void experts(std::string_view name, std::unique_ptr<Experts>& experts) override { enter(name, experts, on_experts); }
  void member(std::string_view name, Layer& child) override {
    below(name, [&] {
      if (on_layer) on_layer(path_, child);
      child.visit(*this);
    });
  }
  void parameter(std::string_view name, Parameter& parameter) override {
    if (on_parameter) on_parameter(path_of(name), parameter);
  }
  void buffer(std::string_view name, Buffer& buffer) override {
    if (on_buffer) on_buffer(path_of(name), buffer);
  }

 private:
  template <typename Visit>
  void below(std::string_view name, const Visit& visit) {
    const std::string outer = path_;
    path_ = path_of(name);
    visit();
    path_ = outer;
  }
  template <typename Part, typename OnPart>
  void enter(std::string_view name, std::unique_ptr<Part>& part, const OnPart& on_part) {
    const Part* before = part.get();
    if (on_part) on_part(path_of(name), part);
    if (part.get() == before) below(name, [&] { part->visit(*this); });
  }
  std::string path_of(std::string_view name) const {
    if (path_.empty() || name.empty()) return path_ + std::string(name);
    return path_ + "." + std::string(name);
  }
  std::string path_;
};

// Calls visit(path, slot) where the path matches, and counts.
template <typename Slot, typename Visit>
auto counting(const std::string& pattern, const Visit& visit, int& count) {
  return [&](const std::string& path, std::unique_ptr<Slot>& slot) {
    if (!matches(pattern, path)) return;
    ++count;
    visit(path, slot);
  };
}

}  // namespace

// fnmatch keeps `*` from crossing slashes; ours must not cross dots.
bool matches(std::string pattern, std::string path) {
  std::replace(pattern.begin(), pattern.end(), '.', '/');
  std::replace(path.begin(), path.end(), '.', '/');
  return fnmatch(pattern.c_str(), path.c_str(), FNM_PATHNAME) == 0;
}

void for_each_layer(Layer& layer, const std::function<void(const std::string&, Layer&)>& visit) {
  Walker walker;
  walker.on_layer = visit;
  layer.visit(walker);
}

void for_each_parameter(Layer& layer, const std::function<void(const std::string&, Parameter&)>& visit) {
  Walker walker;
  walker.on_parameter = visit;
  layer.visit(walker);
}

int for_each_match(Layer& layer, const std::string& pattern,
                   const std::function<void(const std::string&, std::unique_ptr<Layer>&)>& visit) {
  int count = 0;
  Walker walker;
  walker.on_slot = counting<Layer>(pattern, visit, count);
  layer.visit(walker);
  return count;
}

int for_each_core(Layer& layer, const std::string& pattern,
                  const std::function<void(const std::string&, std::unique_ptr<AttentionCore>&)>& visit) {
  int count = 0;
  Walker walker;
  walker.on_core = counting<AttentionCore>(pattern, visit, count);
  layer.visit(walker);
  return count;
}

void for_each_router(Layer& layer, const std::function<void(const std::string&, std::unique_ptr<Router>&)>& visit) {
  Walker walker;
  walker.on_router = visit;
  layer.visit(walker);
}

int for_each_experts(Layer& layer, const std::string& pattern,
                     const std::function<void(const std::string&, std::unique_ptr<Experts>&)>& visit) {
  int count = 0;
  Walker walker;
  walker.on_experts = counting<Experts>(pattern, visit, count);
  layer.visit(walker);
  return count;
}

void for_each_buffer(Layer& layer, const std::function<void(const std::string&, Buffer&)>& visit) {
  Walker walker;
  walker.on_buffer = visit;
  layer.visit(walker);
}

std::vector<std::string> slot_paths(Layer& layer) {
  std::vector<std::string> paths;
  Walker walker;
  walker.on_slot = [&](const std::string& path, std::unique_ptr<Layer>&) { paths.push_back(path); };
  walker.on_core = [&](const std::string& path, std::unique_ptr<AttentionCore>&) { paths.push_back(path); };
  walker.on_router = [&](const std::string& path, std::unique_ptr<Router>&) { paths.push_back(path); };
  walker.on_experts = [&](const std::string& path, std::unique_ptr<Experts>&) { paths.push_back(path); };
  layer.visit(walker);
  return paths;
}

}  // namespace ninefold
