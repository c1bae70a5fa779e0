#include "01_collectives/executor/plan_work.h"

#include <array>
#include <cstring>

#include "01_collectives/executor/combine.h"
#include "01_collectives/plan/simulate.h"

namespace ninefold::collectives {
namespace {

bool is_collective(const Call& call) { return call.operation != Operation::send && call.operation != Operation::recv; }

// Elements of a chunk that make a segment.
int64_t segment_elements(const Call& call, int64_t segment_bytes) {
  return call.tensor().defined() ? segment_bytes / size_of(call.tensor().dtype()) : 1;
}

int64_t segments_of(int64_t elements, int64_t segment) { return (elements + segment - 1) / segment; }

// A barrier's messages are signals; elsewhere an empty message is not sent, since both sides know that it is empty.
bool sends_empty_messages(Operation operation) { return operation == Operation::barrier; }

}  // namespace

PlanWork::PlanWork(const Call& call, const PlacedPlan& plan, Transport& transport, SmallScratch& small_scratch,
                   int64_t segment_bytes)
    : operation_(call.operation),
      dtype_(call.tensor().dtype()),
      plan_(plan),
      transport_(transport),
      small_scratch_(small_scratch),
      layout_(call, transport.rank(), transport.size(), plan.chunks),
      segment_(segment_elements(call, segment_bytes)),
      segments_(std::max<int64_t>(segments_of(layout_.largest(), segment_), 1)),
      lane_count_(is_collective(call) ? max_lanes : 1),
      used_lanes_(static_cast<int>(std::min<int64_t>(segments_, lane_count_))),
      slot_bytes_(std::min(layout_.largest(), segment_) * size_of(dtype_)),
      transfers_(used_lanes_ * plan.most_actions) {
  // Slots of single chunks begin at cache lines; a range's chunks are neighbours without gaps.
  if (segments_ > 1) slot_bytes_ = rounded(slot_bytes_);
}

void PlanWork::begin(const Call& call, int tag) {
  op_ = call.op;
  in_address_ = static_cast<std::byte*>(call.in.raw());
  out_address_ = static_cast<std::byte*>(call.out.raw());
  std::byte* const scratch = take_scratch(call);
  for (int i = 0; i < used_lanes_; ++i) {
    lanes_[i] = {.segment = i,
                 .tag = tag + i,
                 .scratch = scratch + i * plan_.slots * slot_bytes_,
                 .transfers = transfers_.data() + i * plan_.most_actions};
    begin_step(lanes_[i]);
  }
}

std::byte* PlanWork::take_scratch(const Call& call) {
  const int64_t bytes = used_lanes_ * plan_.slots * slot_bytes_;
  if (bytes == 0) return nullptr;
  if (bytes <= SmallScratch::size && !small_scratch_.is_taken) {
    has_small_scratch_ = small_scratch_.is_taken = true;
    return small_scratch_.bytes.data();
  }
  const DeviceHandle& device = call.tensor().device();
  const MemoryScope scope(*device, MemoryKind::communication);
  scratch_ = Tensor::empty(device, {bytes / size_of(dtype_)}, dtype_);
  return static_cast<std::byte*>(scratch_.raw());
}

void PlanWork::give_scratch_back() {
  if (has_small_scratch_) has_small_scratch_ = small_scratch_.is_taken = false;
  scratch_ = {};
}

bool PlanWork::step() {
  bool done = true;
  for (int i = 0; i < used_lanes_; ++i) {
    if (lanes_[i].segment < segments_) done &= advance(lanes_[i]);
  }
  if (done) give_scratch_back();
  return done;
}

// Does all that can be done without waiting; true when the lane has no segment left.
bool PlanWork::advance(Lane& lane) {
  for (;;) {
    if (!lane.is_copied) copy_kept(lane);
    if (!transfers_are_done(lane)) return false;
    finish_step(lane);
    if (++lane.step == static_cast<int>(plan_.steps.size())) {
      lane.segment += lane_count_;
      lane.step = 0;
      lane.is_copied = false;
      if (lane.segment >= segments_) return true;
    }
    begin_step(lane);
  }
}

bool PlanWork::transfers_are_done(const Lane& lane) {
  bool all_done = true;
  for (size_t i = 0; i < plan_.steps[lane.step].size(); ++i) all_done &= transport_.test(lane.transfers[i]);
  return all_done;
}

void PlanWork::begin_step(Lane& lane) {
  const auto& actions = plan_.steps[lane.step];
  for (size_t i = 0; i < actions.size(); ++i) start(actions[i], lane, lane.transfers[i]);
}

void PlanWork::start(const PlacedAction& placed, const Lane& lane, Transfer& transfer) {
  const Action& action = placed.action;
  const int64_t bytes = segment_size(action.chunks, lane.segment) * size_of(dtype_);
  transfer = {};
  if (bytes == 0 && !sends_empty_messages(operation_)) return;
  std::byte* const message = address(placed.message, action.chunks.first, lane);
  if (action.kind == Action::Kind::send) {
    if (placed.is_packed) pack(placed, lane, false);
    transfer = transport_.send(message, bytes, action.peer, lane.tag);
  } else {
    transfer = transport_.recv(message, bytes, action.peer, lane.tag);
  }
}

// All transfers of the step are complete.
void PlanWork::finish_step(const Lane& lane) {
  const auto& actions = plan_.steps[lane.step];
  bool collects = false;
  for (const PlacedAction& placed : actions) {
    if (placed.action.kind == Action::Kind::receive && placed.is_packed) pack(placed, lane, true);
    if (placed.action.kind == Action::Kind::reduce) add(placed, lane);
    if (placed.action.adds()) transport_.added(segment_size(placed.action.chunks, lane.segment) * size_of(dtype_));
    collects |= placed.action.kind == Action::Kind::collect;
  }
  if (collects) add_in_rank_order(actions, lane);
}

void PlanWork::add(const PlacedAction& placed, const Lane& lane) const {
  const Action& action = placed.action;
  const int chunk = action.chunks.first;
  // The lower rank's version first: so partners that exchange get the same bits, whatever is added.
  std::array<const void*, 2> pieces = {address(placed.own, chunk, lane), address(placed.message, chunk, lane)};
  if (action.peer < transport_.rank()) std::swap(pieces[0], pieces[1]);
  combine(address(placed.target, chunk, lane), pieces, segment_size(action.chunks, lane.segment), dtype_, op_of(action),
          transport_.size());
}

void PlanWork::add_in_rank_order(const std::vector<PlacedAction>& step, const Lane& lane) const {
  std::vector<const void*> pieces(transport_.size());
  const PlacedAction* last = nullptr;
  for (const PlacedAction& placed : step) {
    if (placed.action.kind != Action::Kind::collect) continue;
    pieces[placed.action.peer] = address(placed.message, placed.action.chunks.first, lane);
    last = &placed;
  }
  const Chunks chunks = last->action.chunks;
  pieces[transport_.rank()] = address(last->own, chunks.first, lane);
  combine(address(last->target, chunks.first, lane), pieces, segment_size(chunks, lane.segment), dtype_,
          op_of(last->action), transport_.size());
}

// Puts the chunks of a message together, or takes them apart.
void PlanWork::pack(const PlacedAction& placed, const Lane& lane, bool unpack) const {
  std::byte* packed = address(placed.message, placed.action.chunks.first, lane);
  for (const int chunk : members(placed.action.chunks, plan_.chunks)) {
    std::byte* const own = address({Space::out}, chunk, lane);
    const int64_t bytes = segment_size(chunk, lane.segment) * size_of(dtype_);
    if (bytes > 0) std::memcpy(unpack ? own : packed, unpack ? packed : own, bytes);
    packed += bytes;
  }
}

void PlanWork::copy_kept(Lane& lane) const {
  lane.is_copied = true;
  if (plan_.kept < 0) return;
  const int64_t bytes = segment_size(plan_.kept, lane.segment) * size_of(dtype_);
  if (bytes > 0) {
    std::memcpy(address({Space::out}, plan_.kept, lane), address({Space::in}, plan_.kept, lane), bytes);
  }
}

int64_t PlanWork::segment_size(int chunk, int64_t segment) const {
  return std::clamp<int64_t>(layout_.size(chunk) - segment * segment_, 0, segment_);
}

int64_t PlanWork::segment_size(Chunks chunks, int64_t segment) const {
  int64_t size = segment_size(chunks.first, segment);
  for (int i = 1; i < chunks.count; ++i) size += segment_size((chunks.first + i) % plan_.chunks, segment);
  return size;
}

std::byte* PlanWork::address(Place place, int chunk, const Lane& lane) const {
  if (place.space == Space::scratch) return lane.scratch + place.slot * slot_bytes_;
  std::byte* const begin = place.space == Space::in ? in_address_ : out_address_;
  return begin + (layout_.begin(place.space, chunk) + lane.segment * segment_) * size_of(dtype_);
}

// An average is a sum until it is complete.
ReduceOp PlanWork::op_of(const Action& action) const {
  return op_ == ReduceOp::avg && !action.completes ? ReduceOp::sum : op_;
}

Sent volume_of(const Call& call, const PlacedPlan& plan, int rank, int ranks, int64_t segment_bytes) {
  const Layout layout(call, rank, ranks, plan.chunks);
  const int64_t segment = segment_elements(call, segment_bytes);
  const int64_t element = call.tensor().defined() ? size_of(call.tensor().dtype()) : 0;
  Sent volume;
  for (const auto& step : plan.steps) {
    for (const PlacedAction& placed : step) {
      if (placed.action.kind != Action::Kind::send) continue;
      int64_t size = 0, messages = sends_empty_messages(call.operation) ? 1 : 0;
      for (const int chunk : members(placed.action.chunks, plan.chunks)) {
        size += layout.size(chunk);
        messages = std::max(messages, segments_of(layout.size(chunk), segment));
      }
      if (messages > 0) volume.add(placed.action.peer, {messages, size * element});
    }
  }
  return volume;
}

}  // namespace ninefold::collectives
