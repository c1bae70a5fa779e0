#include "common/comm/world.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <numeric>
#include <thread>

#include "common/base/stopwatch.h"
#include "common/base/trace.h"
#include "common/comm/compare_calls.h"
#include "common/comm/mpi/job.h"
#include "common/comm/state.h"
#include "common/comm/virtual_time.h"
#include "common/tensor/ops.h"

namespace ninefold {
namespace {

// How long a rank that gives up waits for the others to say where they wait.
constexpr auto last_words = std::chrono::milliseconds(1500);

// A collective among one rank: its result is its own contribution.
void complete_alone(const Call& call) {
  if (call.out.defined() && call.in.raw() != call.out.raw()) ops::copy_(call.out, call.in);
}

// A flag that is true for as long as this lives, however the scope is left.
class Raised {
 public:
  explicit Raised(bool& flag) : flag_(flag) { flag_ = true; }
  ~Raised() { flag_ = false; }
  Raised(const Raised&) = delete;
  Raised& operator=(const Raised&) = delete;

 private:
  bool& flag_;
};

bool is_collective(const Call& call) { return call.operation != Operation::send && call.operation != Operation::recv; }

// "all_reduce dp_replicate bucket 1"
std::string span_name(const Call& call, const Group& group) {
  return fmt::format("{} {}{}{}", name_of(call.operation), group.name(), group.label().empty() ? "" : " ",
                     group.label());
}

bool is_on_meta(const Call& call) {
  return call.tensor().defined() && call.tensor().device()->type() == DeviceType::meta;
}

}  // namespace

World::World(WorldOptions options, CollectivesFactory collectives)
    : options_(std::move(options)),
      make_collectives_(std::move(collectives)),
      exceptions_before_(std::uncaught_exceptions()) {
  std::unique_ptr<Transport> transport = mpi::world_transport(options_.synchronous_sends);
  std::vector<int> all(transport->size());
  std::iota(all.begin(), all.end(), 0);
  const int rank = transport->rank();
  if (options_.cluster) {
    virtual_time_ = std::make_unique<VirtualTime>(*options_.cluster, rank);
    transport = virtual_time_->timed(std::move(transport), all);
  }
  group_ = group_over("world", std::move(all), rank, std::move(transport));

  outer_after_kernel_ = options_.device->after_kernel;
  options_.device->after_kernel = [this](const KernelCost& cost) {
    if (outer_after_kernel_) outer_after_kernel_(cost);
    if (virtual_time_) virtual_time_->clock().compute(cost);
    progress();
  };
}

World::~World() {
  options_.device->after_kernel = outer_after_kernel_;
  if (std::uncaught_exceptions() > exceptions_before_) {
    // The job is about to end. Peers may still read and write the tensors under way, so these are never freed.
    static_cast<void>(std::make_unique<decltype(in_flight_)>(std::move(in_flight_)).release());
    return;
  }
  const std::vector<std::shared_ptr<InFlight>> left = in_flight_;
  for (const auto& in_flight : left) Pending(in_flight).wait();
}

int World::rank() const { return group_.rank(); }
int World::size() const { return group_.size(); }
VirtualClock* World::virtual_clock() const { return virtual_time_ ? &virtual_time_->clock() : nullptr; }

void World::arrange(const std::vector<MeshDimension>& dimensions) {
  if (virtual_time_) virtual_time_->arrange(dimensions);
}

Group World::group_over(std::string name, std::vector<int> members, int rank, std::unique_ptr<Transport> transport) {
  auto state = std::make_shared<Group::State>();
  state->world = this;
  state->name = std::move(name);
  state->members = std::move(members);
  state->rank = rank;
  if (state->members.size() > 1) {
    state->transport = std::move(transport);
    state->collectives = make_collectives_(*state->transport);
  }
  return Group(std::move(state));
}

Group World::make_group(std::string name, const std::vector<int>& members) {
  const auto own = std::find(members.begin(), members.end(), rank());
  expect(own != members.end(), "rank {} makes the group {} without being in it", rank(), name);
  std::unique_ptr<Transport> transport;
  if (members.size() > 1) transport = group_.transport().subset(members);
  return group_over(std::move(name), members, static_cast<int>(own - members.begin()), std::move(transport));
}

Pending World::start(const Group& group, Call call) {
  const ClockStop stop(virtual_clock());
  if (group.size() == 1) {
    complete_alone(call);
    return {};
  }
  const bool books_transport = book_start(group, call);
  if (is_on_meta(call)) return {};
  if (options_.debug_comm && is_collective(call)) compare_calls(group, call);

  auto in_flight = std::make_shared<InFlight>();
  in_flight->group = group;
  in_flight->books_transport = books_transport;
  in_flight->begin = trace_now();
  if (virtual_time_) return start_in_virtual_time(std::move(in_flight), std::move(call));
  const Volume before = group.transport().sent();
  in_flight->work = group.state_->collectives->start(call);
  in_flight->call = std::move(call);
  book_sent_since(before, *in_flight);
  in_flight_.push_back(in_flight);
  return Pending(std::move(in_flight));
}

// It runs as soon as those before it leave it their ports.
Pending World::start_in_virtual_time(std::shared_ptr<InFlight> in_flight, Call call) {
  in_flight->call = std::move(call);
  virtual_time_->issue(*in_flight, !traffic_.paused());
  in_flight_.push_back(in_flight);
  progress();
  return Pending(std::move(in_flight));
}

bool World::book_start(const Group& group, const Call& call) {
  if (traffic_.paused() || call.operation == Operation::recv) return false;
  const Collectives& collectives = *group.state_->collectives;
  traffic_.book_call(group.name(), call.operation);
  if (!is_on_meta(call) && !collectives.sends_by_itself(call)) return true;
  traffic_.book_bytes(group.name(), call.operation, collectives.volume(call), true);
  return false;
}

void World::book_sent_since(const Volume& before, const InFlight& in_flight) {
  const Volume sent = in_flight.group.transport().sent() - before;
  if (!in_flight.books_transport || sent == Volume{}) return;
  traffic_.book_bytes(in_flight.group.name(), in_flight.call.operation, sent, false);
}

void World::advance(InFlight& in_flight) {
  const VirtualTime::Run run(virtual_time_.get(), in_flight);
  const Volume before = in_flight.group.transport().sent();
  in_flight.done = true;  // also when the step throws: it is not repeated
  if (!in_flight.work) in_flight.work = in_flight.group.state_->collectives->start(in_flight.call);
  in_flight.done = in_flight.work->step();
  book_sent_since(before, in_flight);
  if (!in_flight.done) return;
  if (virtual_time_) virtual_time_->ended(in_flight);
  in_flight.work.reset();
  add_span("communication", in_flight.call, in_flight.group, in_flight.begin);
  add_virtual_span("communication", in_flight, in_flight.course.begin, in_flight.course.reached);
}

int64_t World::trace_now() const { return options_.device->trace ? Trace::now() : 0; }

void World::add_span(std::string_view category, const Call& call, const Group& group, int64_t begin) {
  Trace* trace = options_.device->trace;
  if (!trace) return;
  trace->add_span(span_name(call, group), category, begin, Trace::now());
}

void World::add_virtual_span(std::string_view category, const InFlight& in_flight, double begin, double end) {
  Trace* trace = options_.device->trace;
  if (!trace || !in_flight.course.is_timed) return;
  trace->add_virtual_span(span_name(in_flight.call, in_flight.group), category, begin, end);
}

void World::progress() {
  // A step may run operations on the device, whose hook leads here again.
  if (progressing_ || in_flight_.empty()) return;
  const Raised flag(progressing_);
  const ClockStop stop(virtual_clock());
  PortSet busy = 0;  // in virtual time: what earlier calls have still to book
  for (const auto& in_flight : in_flight_) {
    if (!in_flight->done && VirtualTime::may_run(*in_flight, busy)) advance(*in_flight);
    busy |= VirtualTime::keeps_busy(*in_flight);
  }
  std::erase_if(in_flight_, [](const auto& in_flight) { return in_flight->done; });
}

void World::wait_until(const std::function<bool()>& done, const Call& call, const Group& group) {
  if (done()) return;
  const ClockStop stop(virtual_clock());
  const int64_t begin = trace_now();
  progress();
  // Small messages have come by now, and reading the clock would be a good part of their time.
  if (!done()) {
    const Stopwatch waited;
    do {
      if (waited.seconds() > options_.timeout) give_up(call, group);
      progress();
    } while (!done());
    if (call.operation != Operation::control && !traffic_.paused()) waited_ += waited.seconds();
  }
  add_span("wait", call, group, begin);
}

void World::join(const InFlight& in_flight) {
  if (!virtual_time_) return;
  const ClockStop stop(virtual_clock());
  const double begin = virtual_clock()->now();
  virtual_time_->waited(in_flight);
  add_virtual_span("wait", in_flight, begin, virtual_clock()->now());
}

void World::give_up(const Call& call, const Group& group) const {
  std::fflush(stdout);
  fmt::print(stderr, "ninefold: rank {} has waited {} s in {} over {} (ranks {}), step {}; --timeout allows more\n",
             rank(), options_.timeout, to_string(call), group.name(), fmt::join(group.members(), ", "), step_);
  std::fflush(stderr);
  std::this_thread::sleep_for(last_words);
  mpi::end_job(1);
}

}  // namespace ninefold
