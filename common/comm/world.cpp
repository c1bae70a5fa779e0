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

}  // namespace

World::World(WorldOptions options, CollectivesFactory collectives)
    : options_(std::move(options)),
      make_collectives_(std::move(collectives)),
      exceptions_before_(std::uncaught_exceptions()) {
  auto state = std::make_shared<Group::State>();
  state->world = this;
  state->name = "world";
  state->transport = mpi::world_transport(options_.synchronous_sends);
  state->rank = state->transport->rank();
  state->members.resize(state->transport->size());
  std::iota(state->members.begin(), state->members.end(), 0);
  if (state->members.size() > 1) state->collectives = make_collectives_(*state->transport);
  group_ = Group(std::move(state));

  outer_after_kernel_ = options_.device->after_kernel;
  options_.device->after_kernel = [this](const KernelCost& cost) {
    if (outer_after_kernel_) outer_after_kernel_(cost);
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

Group World::make_group(std::string name, const std::vector<int>& members) {
  const auto own = std::find(members.begin(), members.end(), rank());
  expect(own != members.end(), "rank {} makes the group {} without being in it", rank(), name);
  auto state = std::make_shared<Group::State>();
  state->world = this;
  state->name = std::move(name);
  state->members = members;
  state->rank = static_cast<int>(own - members.begin());
  if (members.size() > 1) {
    state->transport = group_.transport().subset(members);
    state->collectives = make_collectives_(*state->transport);
  }
  return Group(std::move(state));
}

Pending World::start(const Group& group, Call call) {
  if (group.size() == 1) {
    complete_alone(call);
    return {};
  }
  Collectives& collectives = *group.state_->collectives;
  const bool booked = !traffic_.paused() && call.operation != Operation::recv;
  const bool on_meta = call.tensor().defined() && call.tensor().device()->type() == DeviceType::meta;
  const bool by_formula = on_meta || collectives.sends_by_itself(call);
  if (booked) traffic_.book_call(group.name(), call.operation);
  if (booked && by_formula) traffic_.book_bytes(group.name(), call.operation, collectives.volume(call), true);
  if (on_meta) return {};
  if (options_.debug_comm && is_collective(call)) compare_calls(group, call);

  auto in_flight = std::make_shared<InFlight>();
  in_flight->group = group;
  in_flight->books_transport = booked && !by_formula;
  in_flight->begin = Trace::now();
  const Volume before = group.transport().sent();
  in_flight->work = collectives.start(call);
  if (in_flight->books_transport) {
    traffic_.book_bytes(group.name(), call.operation, group.transport().sent() - before, false);
  }
  in_flight->call = std::move(call);
  in_flight_.push_back(in_flight);
  return Pending(std::move(in_flight));
}

void World::advance(InFlight& in_flight) {
  const Transport& transport = in_flight.group.transport();
  const Volume before = transport.sent();
  in_flight.done = true;  // also when the step throws: it is not repeated
  in_flight.done = in_flight.work->step();
  if (in_flight.books_transport && transport.sent() != before) {
    traffic_.book_bytes(in_flight.group.name(), in_flight.call.operation, transport.sent() - before, false);
  }
  if (!in_flight.done) return;
  in_flight.work.reset();
  add_span("communication", in_flight.call, in_flight.group, in_flight.begin);
}

void World::add_span(std::string_view category, const Call& call, const Group& group, int64_t begin) {
  Trace* trace = options_.device->trace;
  if (trace)
    trace->add_span(fmt::format("{} {}", name_of(call.operation), group.name()), category, begin, Trace::now());
}

void World::progress() {
  // A step may run operations on the device, whose hook leads here again.
  if (progressing_ || in_flight_.empty()) return;
  const Raised flag(progressing_);
  for (const auto& in_flight : in_flight_) {
    if (!in_flight->done) advance(*in_flight);
  }
  std::erase_if(in_flight_, [](const auto& in_flight) { return in_flight->done; });
}

void World::wait_until(const std::function<bool()>& done, const Call& call, const Group& group) {
  if (done()) return;
  const Stopwatch waited;
  const int64_t begin = Trace::now();
  for (;;) {
    progress();
    if (done()) break;
    if (waited.seconds() > options_.timeout) give_up(call, group);
  }
  add_span("wait", call, group, begin);
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
