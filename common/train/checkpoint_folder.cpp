#include "common/train/checkpoint_folder.h"

#include <sys/file.h>

#include <charconv>
#include <cstring>
#include <filesystem>

#include "common/base/check.h"

namespace ninefold {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view prefix = "step_", unfinished = ".tmp";

std::optional<int64_t> step_of(std::string_view name) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  // As it is written here: "step_007" is the name of something else.
  const bool is_number = error == std::errc() && end == name.data() + name.size() && step >= 0;
  return is_number && fmt::format("{}", step) == name ? std::optional(step) : std::nullopt;
}

void rename(const std::string& from, const std::string& to) {
  require(rename_on_disk(from, to), "{} cannot be renamed to {}: {}", from, to, std::strerror(errno));
}

}  // namespace

std::string checkpoint_path(const std::string& folder, int64_t step) {
  return fmt::format("{}/{}{}", folder, prefix, step);
}

std::string unfinished_path(const std::string& folder, int64_t step) {
  return checkpoint_path(folder, step).append(unfinished);
}

std::vector<int64_t> checkpoint_steps(const std::string& folder) {
  std::vector<int64_t> steps;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (const auto step = step_of(entry.path().filename().string())) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::string model_folder(const std::string& path) {
  const std::vector<int64_t> steps = checkpoint_steps(path);
  return steps.empty() ? path : checkpoint_path(path, steps.back());
}

CheckpointFolder::CheckpointFolder(std::string path) : path_(std::move(path)) {
  std::error_code error;
  fs::create_directories(path_, error);
  require(!error && fs::is_directory(path_, error), "--checkpoint {}: the folder cannot be made: {}", path_,
          error ? error.message() : "there is a file of that name");
  lock_ = std::make_unique<OpenFile>(path_ + "/.lock", O_RDWR | O_CREAT);
  require(lock_->is_open(), "--checkpoint {}: nothing can be written there: {}; choose another folder", path_,
          std::strerror(errno));
  require(::flock(lock_->descriptor(), LOCK_EX | LOCK_NB) == 0,
          "--checkpoint {}: another run is writing there; wait for its end or choose another folder", path_);
  remove_unfinished();
}

CheckpointFolder::~CheckpointFolder() {
  std::error_code ignored;
  if (begun_) fs::remove_all(unfinished_path(path_, *begun_), ignored);
}

void CheckpointFolder::remove_unfinished() const {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path_)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(unfinished)) fs::remove_all(entry.path(), ignored);
  }
}

void CheckpointFolder::begin(int64_t step) {
  begun_ = step;
  std::error_code error;
  const std::string path = unfinished_path(path_, step);
  fs::create_directory(path, error);
  require(!error, "{} cannot be made: {}; make room or choose another place", path, error.message());
}

void CheckpointFolder::commit(int64_t keep) {
  expect(begun_.has_value(), "nothing was begun in {}", path_);
  // The names in it are on the disk only when it is.
  OpenFile folder(unfinished_path(path_, *begun_), O_RDONLY | O_DIRECTORY);
  if (folder.is_open()) folder.flush();
  rename(unfinished_path(path_, *begun_), checkpoint_path(path_, *begun_));
  begun_.reset();
  keep_newest(keep);
}

// A folder that is being removed must not look whole.
void CheckpointFolder::keep_newest(int64_t keep) const {
  std::vector<int64_t> steps = checkpoint_steps(path_);
  for (size_t i = 0; keep > 0 && i + static_cast<size_t>(keep) < steps.size(); ++i) {
    rename(checkpoint_path(path_, steps[i]), unfinished_path(path_, steps[i]));
    std::error_code ignored;
    fs::remove_all(unfinished_path(path_, steps[i]), ignored);
  }
}

}  // namespace ninefold
