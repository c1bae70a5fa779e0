#include "common/base/termination.h"

#include <csignal>

namespace ninefold {
namespace {

// A handler of signals can reach nothing else.
volatile std::sig_atomic_t is_requested_flag = 0;

extern "C" void note_request(int) {
  is_requested_flag = 1;
  std::signal(SIGTERM, SIG_DFL);
}

}  // namespace

Termination::Termination() {
  is_requested_flag = 0;
  std::signal(SIGTERM, note_request);
}

Termination::~Termination() { std::signal(SIGTERM, SIG_DFL); }

bool Termination::is_requested() const { return is_requested_flag != 0; }

}  // namespace ninefold
