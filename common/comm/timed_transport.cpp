#include "common/comm/timed_transport.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "common/base/check.h"

namespace ninefold {
namespace {

std::unique_ptr<Transport> duplicate(Transport& transport) {
  std::vector<int> all(transport.size());
  std::iota(all.begin(), all.end(), 0);
  return transport.subset(all);
}

}  // namespace

// A message on its way; it stays where it is, because its stamps are sent from here.
class TimedTransport::Message : public Unbooked {
 public:
  Message(TimedTransport& transport, Transfer data, int64_t bytes, int peer, int tag)
      : transport_(transport), data_(data), bytes_(bytes), peer_(peer), tag_(tag) {}

  void post(bool is_send, Course& course) {
    course_ = &course;
    is_send_ = is_send;
    posted_ = course.reached;
    line_ = &transport_.network_.ports.line_to(transport_.members_[peer_]);
    ++course.unbooked;
    const bool meets = bytes_ > transport_.network_.cluster.rendezvous;
    if (is_send) {
      if (meets) receipt_ = transport_.receipts_->recv(&received_from_, sizeof(double), peer_, tag_);
    } else {
      stamp_ = transport_.stamps_->recv(&begin_, sizeof(double), peer_, tag_);
      received_from_ = posted_;
      if (meets) receipt_ = transport_.receipts_->send(&received_from_, sizeof(double), peer_, tag_);
    }
    port().post(*this);
  }

  bool book() override {
    const bool is_known = is_send_ ? transport_.receipts_ == nullptr || transport_.receipts_->test(receipt_)
                                   : transport_.stamps_->test(stamp_);
    if (!is_known) return false;
    const double occupied = static_cast<double>(bytes_) / line_->link.bandwidth;
    if (is_send_) {
      begin_ = std::max({posted_, received_from_, port().free});
      port().free = begin_ + occupied;
      stamp_ = transport_.stamps_->send(&begin_, sizeof(double), peer_, tag_);
    } else {
      port().free = std::max(begin_ + line_->link.latency, port().free) + occupied;
    }
    complete_ = port().free;
    is_booked_ = true;
    --course_->unbooked;
    return true;
  }

  // Both in time and in truth.
  bool is_done() {
    if (!course_) return transport_.messages_->test(data_);
    port().book();
    if (!is_booked_ || !transport_.messages_->test(data_) || !transport_.stamps_->test(stamp_)) return false;
    if (transport_.receipts_ && !transport_.receipts_->test(receipt_)) return false;
    course_->reached = std::max(course_->reached, complete_);
    return true;
  }

 private:
  Port& port() const { return is_send_ ? line_->sending : line_->receiving; }

  TimedTransport& transport_;
  Transfer data_, stamp_{}, receipt_{};
  int64_t bytes_;
  int peer_, tag_;
  Course* course_ = nullptr;  // none: not timed
  bool is_send_ = false, is_booked_ = false;
  Ports::Line* line_ = nullptr;
  double posted_ = 0, received_from_ = 0, begin_ = 0, complete_ = 0;
};

TimedTransport::TimedTransport(std::unique_ptr<Transport> messages, std::vector<int> members, TimedNetwork& network)
    : messages_(std::move(messages)), stamps_(duplicate(*messages_)), members_(std::move(members)), network_(network) {
  if (network.cluster.rendezvous < std::numeric_limits<int64_t>::max()) receipts_ = duplicate(*messages_);
}

TimedTransport::~TimedTransport() = default;

std::unique_ptr<Transport> TimedTransport::subset(const std::vector<int>& members) {
  std::vector<int> world_ranks;
  for (const int member : members) world_ranks.push_back(members_[member]);
  return std::make_unique<TimedTransport>(messages_->subset(members), std::move(world_ranks), network_);
}

void TimedTransport::added(int64_t bytes) {
  if (network_.running) network_.running->reached += static_cast<double>(bytes) / network_.cluster.reduce;
}

Transfer TimedTransport::start_send(const void* data, int64_t bytes, int peer, int tag) {
  return post(messages_->send(data, bytes, peer, tag), true, bytes, peer, tag);
}

Transfer TimedTransport::start_recv(void* data, int64_t bytes, int peer, int tag) {
  return post(messages_->recv(data, bytes, peer, tag), false, bytes, peer, tag);
}

Transfer TimedTransport::post(Transfer data, bool is_send, int64_t bytes, int peer, int tag) {
  const uintptr_t request = next_request_++;
  const auto& message = under_way_[request] = std::make_unique<Message>(*this, data, bytes, peer, tag);
  if (network_.running) message->post(is_send, *network_.running);
  return {.request = request, .expected_bytes = bytes, .done = false};
}

bool TimedTransport::test_request(Transfer& transfer) {
  const auto message = under_way_.find(transfer.request);
  if (!message->second->is_done()) return false;
  under_way_.erase(message);
  return true;
}

}  // namespace ninefold
