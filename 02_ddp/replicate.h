// Data parallelism: every rank holds the whole model and handles its own part of the batch; the gradients are summed
// over the ranks. The forms differ only in when, and in how many pieces, they are summed:
//   naive       one all_reduce per parameter, after the backward
//   flat        all gradients are views into one buffer: one all_reduce, after the backward
//   bucketed    views into a few buffers of about bucket_mb: one all_reduce each, after the backward, all in flight
//               at once
//   overlapped  the same buffers, each on its way as soon as the backward has completed it
// Sums, not averages: each rank's loss was already divided by the global number of targets. Gradients in bf16 or f16
// are summed in f32, or a ring would round them at every hop: in a buffer that lives while they are on their way. (Li
// et al. 2020, PyTorch Distributed, arXiv 2006.15704)
#pragma once

#include <string>
#include <vector>

#include "02_ddp/data_groups.h"
#include "common/comm/group.h"
#include "common/comm/traffic.h"
#include "common/nn/model.h"
#include "common/train/batches.h"
#include "common/train/trainer.h"

namespace ninefold {

enum class DdpVariant { naive, flat, bucketed, overlapped };

struct DdpOptions {
  DdpVariant variant = DdpVariant::overlapped;
  double bucket_mb = 25;      // million bytes
  Dtype reduce = Dtype::f32;  // in which gradients are summed: f32, or their own type
};

class Replicated {
 public:
  // To be called before `materialize`: but for naive it lays the gradients, of type `gradient`, into one buffer a
  // bucket. `model` and `device` outlive it.
  Replicated(Model& model, const DataGroups& groups, const DdpOptions& options, const DeviceHandle& device,
             Dtype gradient);
  ~Replicated();
  Replicated(const Replicated&) = delete;
  Replicated& operator=(const Replicated&) = delete;

  // Gives every rank the parameters of rank 0 of their group. After `materialize`, once.
  void broadcast_parameters() const;

  // After the step's last backward: returns when all gradients are sums over their groups.
  void reduce_gradients();

  // Replaces the bytes of gradients by those of the buckets, in which, but under naive, each parameter starts at a
  // multiple of 64 bytes.
  void predict_memory(MemoryByKind& bytes) const;

  // Books what `steps` steps send, one call a bucket (naive: a parameter) however many micro-batches a step has: 2
  // (n-1)/n of the gradients' bytes, in the type they are summed in, where all_reduce is a ring. A group of one rank
  // sends nothing.
  void predict_traffic(TrafficLedger& ledger, int64_t steps) const;

  // Bit-identical to a serial run that adds up one buffer a rank in rank order, in whatever variant: where the group's
  // sums are in that order (up to two ranks, or --collectives ordered), and in f32. Narrower sums over three ranks and
  // more are bounded: the serial run rounds after every rank, the collective once.
  Numerics numerics() const;
  // All ranks at once, in the type that was asked for.
  SumGrouping grouping() const { return {.in_f32 = reduce_ == Dtype::f32}; }

  // All of this, as the trainer needs to know it. It refers to this object.
  Parallelism parallelism();

 private:
  // What one all_reduce sums: neighbours in the order of the backward; under naive, flat: one parameter, all.
  struct Bucket {
    const Group* group;
    std::vector<Parameter*> parameters{};
    std::string label{};  // in a trace
    int64_t elements = 0;
    Tensor gradients{};  // undefined under naive, where the parameter's own gradient is summed
    Tensor summed{};     // while on its way: the gradients, or what they were converted to
    size_t complete = 0;
    Pending pending{};
    bool is_complete() const { return complete == parameters.size(); }
    const Tensor& stored() const { return gradients.defined() ? gradients : parameters.front()->gradient; }
  };
  void fill_buckets(Model& model, double bucket_bytes);
  // The last bucket of the group, where it may take another parameter.
  Bucket* open_bucket(const Group& group, double bucket_bytes);
  void lay_out(Bucket& bucket, const DeviceHandle& device) const;
  void listen();
  bool converts(const Bucket& bucket) const { return reduce_ != gradient_ && bucket.group->size() > 1; }
  void start_next();
  void finish(Bucket& bucket) const;

  DataGroups groups_;
  DdpVariant variant_;
  Dtype gradient_, reduce_;
  std::vector<Bucket> buckets_;
  size_t started_ = 0;  // buckets on their way this step
};

}  // namespace ninefold
