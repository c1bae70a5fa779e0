// Memory that nobody can read or write except while it is open: as a GPU's is for the host.
#pragma once

#include <map>

#include "common/tensor/caching_allocator.h"

namespace ninefold::fibres {

class ProtectedMemory final : public Segments {
 public:
  std::byte* take(int64_t bytes) override;
  void give_back(std::byte* segment, int64_t bytes) override;

  // While one lives, the memory can be read and written.
  class Open {
   public:
    explicit Open(ProtectedMemory& memory);
    ~Open();
    Open(const Open&) = delete;
    Open& operator=(const Open&) = delete;

   private:
    ProtectedMemory& memory_;
  };

 private:
  void protect(int rights);

  HostSegments source_;
  std::map<std::byte*, int64_t> segments_;
  int openings_ = 0;
};

}  // namespace ninefold::fibres
