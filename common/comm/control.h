// The few host values that programs exchange: losses, decisions, names. They are not the traffic of a technique, and
// are booked apart, as Operation::control. All ranks of the group make the same calls in the same order; every function
// waits, and keeps the world's timeout.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "common/comm/group.h"

namespace ninefold::control {

// The root's bytes, on every rank; what the others pass is ignored.
std::string broadcast_bytes(const Group& group, const std::string& bytes, int root = 0);
// On rank 0: every rank's bytes, in rank order. Empty on the others.
std::vector<std::string> gather_bytes(const Group& group, const std::string& bytes);
// Every rank's bytes, in rank order, on every rank. A message about this wait names `waiting_for`.
std::vector<std::string> all_gather_bytes(const Group& group, const std::string& bytes,
                                          const Call& waiting_for = {.operation = Operation::control});

template <typename T>
std::string to_bytes(const std::vector<T>& values) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

template <typename T>
std::vector<T> from_bytes(const std::string& bytes) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// The root's values, on every rank.
template <typename T>
std::vector<T> broadcast(const Group& group, const std::vector<T>& values, int root = 0) {
  return from_bytes<T>(broadcast_bytes(group, to_bytes(values), root));
}

// Every rank's value, in rank order, on every rank.
template <typename T>
std::vector<T> all_gather(const Group& group, const T& value) {
  std::string all;
  for (const std::string& bytes : all_gather_bytes(group, to_bytes(std::vector<T>{value}))) all += bytes;
  return from_bytes<T>(all);
}

// Added in rank order: 0, 1, 2, …
double sum(const Group& group, double value);
int64_t max(const Group& group, int64_t value);
// True where it is true on every rank.
bool all_true(const Group& group, bool value);

}  // namespace ninefold::control
