// Finding the layers of a model by name, and putting others in their place. Techniques are built on these.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "common/nn/attention.h"
#include "common/nn/layer.h"
#include "common/nn/mixture_of_experts.h"

namespace ninefold {

// Calls visit(path, parameter) for every parameter below `layer`, in forward order. Paths join names with dots.
void for_each_parameter(Layer& layer, const std::function<void(const std::string&, Parameter&)>& visit);

// Calls visit(path, layer) for every layer below `layer`, in slots and members, outer ones before inner ones, in
// forward order.
void for_each_layer(Layer& layer, const std::function<void(const std::string&, Layer&)>& visit);

// In a pattern `*` stands for any text without dots: "layers.*.attention.wq".
bool matches(std::string pattern, std::string path);

// Calls visit(path, slot) for every slot below `layer` whose path matches `pattern`, outer slots before inner ones; a
// slot that was refilled is not entered. Returns how many matched.
int for_each_match(Layer& layer, const std::string& pattern,
                   const std::function<void(const std::string&, std::unique_ptr<Layer>&)>& visit);

// The same for attention cores.
int for_each_core(Layer& layer, const std::string& pattern,
                  const std::function<void(const std::string&, std::unique_ptr<AttentionCore>&)>& visit);

// The same for experts; a refilled slot is not entered.
int for_each_experts(Layer& layer, const std::string& pattern,
                     const std::function<void(const std::string&, std::unique_ptr<Experts>&)>& visit);

// Calls visit(path, slot) for every router below `layer`.
void for_each_router(Layer& layer, const std::function<void(const std::string&, std::unique_ptr<Router>&)>& visit);

// Calls visit(path, buffer) for every buffer below `layer`.
void for_each_buffer(Layer& layer, const std::function<void(const std::string&, Buffer&)>& visit);

// Paths of all slots, of whatever kind, below `layer`, for messages about patterns that match nothing.
std::vector<std::string> slot_paths(Layer& layer);

}  // namespace ninefold
