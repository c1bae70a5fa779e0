// Ranks that run the collectives of chapter 01 in one process, without MPI, on exactly representable data.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "01_collectives/collectives.h"
#include "tests/support/exact_data.h"
#include "tests/support/local_transport.h"

namespace ninefold::collectives {

// Ranks that make the same calls, one after the other in this process.
class Cluster {
 public:
  Cluster(int ranks, Dtype dtype, const Chooser& choose) : network_(ranks), dtype_(dtype) {
    for (int rank = 0; rank < ranks; ++rank) {
      transports_.push_back(std::make_unique<LocalTransport>(network_, rank));
      collectives_.push_back(chosen_by(choose)(*transports_.back()));
    }
  }

  Tensor tensor(const Values& values) const { return tensor_of(device_, dtype_, values); }
  Tensor space(int64_t size) const { return tensor(Values(size, -77)); }

  // Starts calls[rank] on every rank and steps them in turn; nobody may stand still for ever. What is sent is what
  // volume() says.
  void run(const std::vector<Call>& calls) {
    std::vector<std::shared_ptr<Work>> works;
    std::vector<Sent> sent(calls.size());
    for (size_t rank = 0; rank < calls.size(); ++rank) {
      transports_[rank]->count_in(&sent[rank]);
      works.push_back(collectives_[rank]->start(calls[rank]));
    }
    size_t done = 0;
    int64_t delivered = -1;
    while (done < works.size()) {
      ASSERT_NE(delivered, network_.delivered()) << "deadlock";
      delivered = network_.delivered();
      for (auto& work : works) {
        if (!work || !work->step()) continue;
        work.reset();
        ++done;
        delivered = -1;
      }
    }
    for (size_t rank = 0; rank < calls.size(); ++rank) {
      transports_[rank]->count_in(nullptr);
      EXPECT_EQ(sent[rank], collectives_[rank]->volume(calls[rank])) << "rank " << rank;
    }
  }

  const DeviceHandle& device() const { return device_; }

 private:
  DeviceHandle device_ = make_cpu_device();
  LocalNetwork network_;
  Dtype dtype_;
  std::vector<std::unique_ptr<LocalTransport>> transports_;
  std::vector<std::unique_ptr<Collectives>> collectives_;
};

}  // namespace ninefold::collectives
