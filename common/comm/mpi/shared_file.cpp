// MPI-IO. What a rank writes is described by two types, the places in its memory and those in the file, so that one
// collective call writes everything.
#include "common/comm/shared_file.h"

#include <algorithm>
#include <climits>

#include "common/comm/mpi/check.h"

namespace ninefold {
namespace {

// Bytes at several addresses; MPI counts those of one block in an int.
class Blocks {
 public:
  Blocks(const std::vector<MPI_Aint>& addresses, const std::vector<int>& lengths) {
    mpi::check(
        MPI_Type_create_hindexed(static_cast<int>(lengths.size()), lengths.data(), addresses.data(), MPI_BYTE, &type_));
    mpi::check(MPI_Type_commit(&type_));
  }
  ~Blocks() { MPI_Type_free(&type_); }
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;
  MPI_Datatype type() const { return type_; }

 private:
  MPI_Datatype type_;
};

void require_success(int result, const std::string& path) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "unknown error";
  int length = 0;
  MPI_Error_string(result, text, &length);
  require(false, "{} cannot be written: {}; choose another place", path, text);
}

void write_blocks(MPI_File file, const std::string& path, const std::vector<FilePart>& parts) {
  std::vector<MPI_Aint> in_file, in_memory;
  std::vector<int> lengths;
  for (const FilePart& part : parts) {
    for (int64_t done = 0; done < part.bytes; done += lengths.back()) {
      MPI_Aint address;
      mpi::check(MPI_Get_address(part.data + done, &address));
      in_file.push_back(part.offset + done);
      in_memory.push_back(address);
      lengths.push_back(static_cast<int>(std::min<int64_t>(part.bytes - done, INT_MAX / 2)));
    }
  }
  if (lengths.empty()) {  // a view of nothing is no view
    require_success(MPI_File_set_view(file, 0, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL), path);
    return require_success(MPI_File_write_at_all(file, 0, nullptr, 0, MPI_BYTE, MPI_STATUS_IGNORE), path);
  }
  const Blocks places(in_file, lengths), values(in_memory, lengths);
  require_success(MPI_File_set_view(file, 0, MPI_BYTE, places.type(), "native", MPI_INFO_NULL), path);
  require_success(MPI_File_write_at_all(file, 0, MPI_BOTTOM, 1, values.type(), MPI_STATUS_IGNORE), path);
}

}  // namespace

void write_together(const std::string& path, const std::vector<FilePart>& parts) {
  MPI_File file;
  require_success(MPI_File_open(MPI_COMM_WORLD, path.c_str(), MPI_MODE_WRONLY, MPI_INFO_NULL, &file), path);
  write_blocks(file, path, parts);
  require_success(MPI_File_sync(file), path);
  require_success(MPI_File_close(&file), path);
}

}  // namespace ninefold
