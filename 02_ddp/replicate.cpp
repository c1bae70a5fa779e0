#include "02_ddp/replicate.h"

#include <algorithm>

#include "common/tensor/ops.h"

namespace ninefold {
namespace {

// Elements that a parameter takes in a buffer: every parameter starts at a multiple of 64 bytes.
int64_t padded(const Parameter& parameter, Dtype gradient) {
  return rounded(elements(parameter.local_shape()) * size_of(gradient)) / size_of(gradient);
}

}  // namespace

Replicated::Replicated(Model& model, const DataGroups& groups, const DdpOptions& options, const DeviceHandle& device,
                       Dtype gradient)
    : groups_(groups), variant_(options.variant), gradient_(gradient), reduce_(options.reduce) {
  fill_buckets(model, options.bucket_mb * 1e6);
  if (variant_ == DdpVariant::naive) return;
  for (Bucket& bucket : buckets_) lay_out(bucket, device);
  if (variant_ == DdpVariant::overlapped) listen();
}

Replicated::~Replicated() {
  for (const Bucket& bucket : buckets_) {
    for (Parameter* parameter : bucket.parameters) parameter->on_gradient_complete = nullptr;
  }
}

// From the last parameter to the first, because that is how the backward completes them.
void Replicated::fill_buckets(Model& model, double bucket_bytes) {
  const auto parameters = parameters_of(model);
  for (auto parameter = parameters.rbegin(); parameter != parameters.rend(); ++parameter) {
    if (!(*parameter)->placement.is_held()) continue;
    const bool is_naive = variant_ == DdpVariant::naive;
    Bucket* bucket = open_bucket(groups_.of(**parameter), bucket_bytes);
    if (!bucket) {
      bucket = &buckets_.emplace_back(Bucket{.group = &groups_.of(**parameter)});
      bucket->label = is_naive ? (*parameter)->name : fmt::format("bucket {}", buckets_.size() - 1);
    }
    bucket->parameters.push_back(*parameter);
    bucket->elements += is_naive ? elements((*parameter)->local_shape()) : padded(**parameter, gradient_);
  }
}

Replicated::Bucket* Replicated::open_bucket(const Group& group, double bucket_bytes) {
  const auto is_of_group = [&](const Bucket& bucket) { return bucket.group == &group; };
  const auto last = std::find_if(buckets_.rbegin(), buckets_.rend(), is_of_group);
  if (last == buckets_.rend() || variant_ == DdpVariant::naive) return nullptr;
  const bool is_full = static_cast<double>(last->elements * size_of(gradient_)) >= bucket_bytes;
  return is_full && variant_ != DdpVariant::flat ? nullptr : &*last;
}

// One tensor of zeros, with the gradients of the bucket's parameters as views into it.
void Replicated::lay_out(Bucket& bucket, const DeviceHandle& device) const {
  const MemoryScope scope(*device, MemoryKind::gradients);
  bucket.gradients = Tensor::zeros(device, {bucket.elements}, gradient_);
  int64_t offset = 0;
  for (Parameter* parameter : bucket.parameters) {
    parameter->gradient = parameter->owned.gradient = bucket.gradients.slice(offset, parameter->local_shape());
    offset += padded(*parameter, gradient_);
  }
}

// Each bucket leaves when its last gradient is complete and all buckets before it have left: all ranks must start
// their collectives in the same order, whatever order their gradients come in.
void Replicated::listen() {
  for (Bucket& bucket : buckets_) {
    for (Parameter* parameter : bucket.parameters) {
      parameter->on_gradient_complete = [this, &bucket] {
        ++bucket.complete;
        while (started_ < buckets_.size() && buckets_[started_].is_complete()) start_next();
      };
    }
  }
}

void Replicated::start_next() {
  Bucket& bucket = buckets_[started_++];
  bucket.summed = bucket.stored();
  if (converts(bucket)) {
    const MemoryScope scope(*bucket.stored().device(), MemoryKind::communication);
    bucket.summed = ops::cast(bucket.stored(), reduce_);
  }
  bucket.pending = bucket.group->labelled(bucket.label).start_all_reduce(bucket.summed);
}

void Replicated::finish(Bucket& bucket) const {
  if (!bucket.summed.defined()) return;
  bucket.pending.wait();
  if (converts(bucket)) ops::copy_(bucket.stored(), bucket.summed);
  bucket.summed = {};
  bucket.complete = 0;
}

void Replicated::reduce_gradients() {
  const bool one_by_one = variant_ == DdpVariant::naive;
  while (started_ < buckets_.size()) {
    start_next();
    if (one_by_one) finish(buckets_[started_ - 1]);
  }
  for (Bucket& bucket : buckets_) finish(bucket);
  started_ = 0;
}

void Replicated::broadcast_parameters() const {
  for (const Bucket& bucket : buckets_) {
    for (const Parameter* parameter : bucket.parameters) bucket.group->broadcast(parameter->value, 0);
  }
}

void Replicated::predict_memory(MemoryByKind& bytes) const {
  int64_t& gradients = bytes[static_cast<size_t>(MemoryKind::gradients)] = 0;
  for (const Bucket& bucket : buckets_) gradients += bucket.elements * size_of(gradient_);
}

void Replicated::predict_traffic(TrafficLedger& ledger, int64_t steps) const {
  for (const Bucket& bucket : buckets_) {
    if (bucket.group->size() == 1) continue;
    ledger.predict(bucket.group->name(), Operation::all_reduce, steps,
                   bucket.group->all_reduce_volume(bucket.elements, reduce_));
  }
}

Numerics Replicated::numerics() const {
  const bool rounds_alike = reduce_ == Dtype::f32 || groups_.all().size() <= 2;
  return groups_.all().sums_in_rank_order() && rounds_alike ? Numerics::bit_identical : Numerics::bounded;
}

Parallelism Replicated::parallelism() {
  return {.grouping = grouping(),
          .reduce_gradients = [this] { reduce_gradients(); },
          .predict_memory = [this](MemoryByKind& bytes) { predict_memory(bytes); },
          .predict_traffic = [this](TrafficLedger& ledger, int64_t steps) { predict_traffic(ledger, steps); },
          .numerics = numerics()};
}

}  // namespace ninefold
