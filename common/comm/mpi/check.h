// Results of MPI calls as errors.
#pragma once

#include <mpi.h>

#include "common/base/check.h"

namespace ninefold::mpi {

// Throws Error with MPI's own text and the caller's place unless `result` is success.
inline void check(int result, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "unknown error";
  int length = 0;
  MPI_Error_string(result, text, &length);
  ninefold::detail::throw_error(text, file, line);
}

}  // namespace ninefold::mpi
