// Where the bytes of a rank go, stage by stage: as a table and as a drawing of stacked bars, a colour for each kind.
#pragma once

#include <string>
#include <vector>

namespace ninefold {

struct MemoryAccount {
  std::string title;
  std::vector<std::string> kinds;
  std::vector<std::vector<double>> bytes;  // of each stage from 0, of each kind

  double total(size_t stage) const;
  // One line a stage.
  std::string table() const;
  std::string svg() const;
};

}  // namespace ninefold
