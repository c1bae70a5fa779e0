#include "common/comm/world.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <numeric>
#include <thread>

#include "common/base/trace.h"
#include "common/comm/compare_calls.h"
#include "common/comm/mpi/job.h"
#include "common/comm/staged.h"
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

// Whether the FLOPs of a model, too, count this kernel.
bool is_product(std::string_view kernel) {
  const auto is_it = [&](std::string_view name) { return kernel.starts_with(name); };
  return is_it("matmul") || is_it("grouped_matmul") || is_it("attention") || is_it("convolution");
}

bool is_gpu(const Device& device) { return device.type() == DeviceType::cuda; }

bool is_on_meta(const Call& call) {
  return call.tensor().defined() && call.tensor().device()->type() == DeviceType::meta;
}

}  // namespace

World::World(WorldOptions options, CollectivesFactory collectives)
    : options_(std::move(options)),
      make_collectives_(is_gpu(*options_.device) ? staged(std::move(collectives)) : std::move(collectives)),
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
    if (is_product(cost.name) && !traffic_.paused()) executed_flops_ += cost.flops;
    progress();
  };
  outer_while_waiting_ = options_.device->host_access().while_waiting;
  options_.device->host_access().while_waiting = [this](double seconds) { while_device_works(seconds); };
}

World::~World() {
  options_.device->after_kernel = outer_after_kernel_;
  options_.device->host_access().while_waiting = outer_while_waiting_;
  if (std::uncaught_exceptions() > exceptions_before_) {
    // The job is about to end. Peers may still read and write the tensors under way, so these are never freed.
    static_cast<void>(std::make_unique<decltype(in_flight_)>(std::move(in_flight_)).release());
    return;
  }
  wait_for_all();
}

void World::wait_for_all() {
  const std::vector<std::shared_ptr<InFlight>> left = in_flight_;
  for (const auto& in_flight : left) {
    wait_until([&] { return in_flight->done; }, in_flight->call, in_flight->group);
    join(*in_flight);
  }
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
  state->traffic = &traffic_.dimension(name);
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

Pending World::start(const Group& group, Call&& call) {
  const ClockStop stop(virtual_clock());
  std::optional<Started> started = begin(group, call);
  if (!started) return {};
  if (!virtual_time_) open(group, call, *started);
  auto in_flight = std::make_shared<InFlight>(InFlight{group, std::move(call), std::move(*started)});
  if (virtual_time_) virtual_time_->issue(*in_flight, !traffic_.paused());
  in_flight_.push_back(in_flight);
  // It runs as soon as those before it leave it their ports.
  if (virtual_time_) progress();
  return Pending(std::move(in_flight));
}

void World::run(const Group& group, Call&& call) {
  // Where others are under way, they have to go on too, and in turn. A GPU may wait by itself.
  if (virtual_time_ || !in_flight_.empty() || is_gpu(*options_.device)) return start(group, std::move(call)).wait();
  std::optional<Started> started = begin(group, call);
  if (!started) return;
  open(group, call, *started);
  wait_until([&] { return step(group, *started); }, call, group);
  add_span("communication", call, group, started->time);
}

std::optional<Started> World::begin(const Group& group, const Call& call) {
  if (group.size() == 1) {
    complete_alone(call);
    return {};
  }
  TrafficEntry* const entry = book_start(group, call);
  if (is_on_meta(call)) return {};
  if (options_.debug_comm && is_collective(call)) compare_calls(group, call);
  return Started{nullptr, entry, trace_now()};
}

TrafficEntry* World::book_start(const Group& group, const Call& call) {
  if (traffic_.paused() || call.operation == Operation::recv) return nullptr;
  const Collectives& collectives = *group.state_->collectives;
  TrafficEntry& entry = (*group.state_->traffic)[call.operation];
  ++entry.calls;
  if (!is_on_meta(call) && !collectives.sends_by_itself(call)) return &entry;
  entry.add(collectives.volume(call));
  entry.by_formula = true;
  return nullptr;
}

void World::open(const Group& group, const Call& call, Started& started) {
  const Group::State& state = *group.state_;
  const Counting counting(*state.transport, started.entry);
  started.work = state.collectives->start(call);
}

bool World::step(const Group& group, Started& started) {
  const Counting counting(*group.state_->transport, started.entry);
  return started.work->step();
}

void World::advance(InFlight& in_flight) {
  const VirtualTime::Run run(virtual_time_.get(), in_flight);
  in_flight.done = true;  // also when the step throws: it is not repeated
  if (!in_flight.started.work) open(in_flight.group, in_flight.call, in_flight.started);
  in_flight.done = step(in_flight.group, in_flight.started);
  if (!in_flight.done) return;
  if (virtual_time_) virtual_time_->ended(in_flight);
  in_flight.started.work.reset();
  add_span("communication", in_flight.call, in_flight.group, in_flight.started.time);
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

void World::leave_to_device(InFlight& in_flight) const {
  for (Tensor* tensor : {&in_flight.call.in, &in_flight.call.out}) {
    if (tensor->defined()) *tensor = Tensor::empty(paper_, tensor->shape(), tensor->dtype());
  }
}

void World::join(const InFlight& in_flight) {
  if (!virtual_time_) return;
  const ClockStop stop(virtual_clock());
  const double begin = virtual_clock()->now();
  virtual_time_->waited(in_flight);
  add_virtual_span("wait", in_flight, begin, virtual_clock()->now());
}

// The device itself waits for what other ranks are to send: they may need this host for that, and may be gone.
void World::while_device_works(double seconds) {
  progress();
  if (seconds <= options_.timeout || in_flight_.empty()) return;
  const InFlight& first = *in_flight_.front();
  give_up(first.call, first.group);
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
