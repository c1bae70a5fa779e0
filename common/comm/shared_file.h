// A file to which all ranks of the job write at once, each its own parts. All of them see the same file system.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ninefold {

// Bytes of this rank's memory, and where in the file they belong.
struct FilePart {
  int64_t offset;
  const char* data;
  int64_t bytes;
};

// Makes a file of so many bytes, with this beginning, and takes the room for all of them on the disk, so that a full
// disk is found before anything else is written. One rank calls it; the others begin to write after it. Throws
// UserError.
void create_shared_file(const std::string& path, std::string_view beginning, int64_t bytes);

// All ranks write their parts with MPI-IO, which joins small parts of many ranks to large ones; `parts` ascend in the
// file and overlap with nobody's. Returns when they are on the disk. All ranks call it. Throws UserError.
void write_together(const std::string& path, const std::vector<FilePart>& parts);

// The same for this rank by itself: without MPI, so that a thread may do it while the rank computes and communicates.
void write_alone(const std::string& path, const std::vector<FilePart>& parts);

}  // namespace ninefold
