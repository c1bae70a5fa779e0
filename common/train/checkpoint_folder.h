// The folder of a run's checkpoints on the disk. Each is a folder step_N of its own, which is written under the name
// step_N.tmp and renamed when it is whole: whoever looks finds whole ones only, whatever kills the run.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/open_file.h"

namespace ninefold {

// step_N in `folder`, and where it is written first.
std::string checkpoint_path(const std::string& folder, int64_t step);
std::string unfinished_path(const std::string& folder, int64_t step);

// The steps of the whole checkpoints in `folder`, ascending; none where there is no such folder.
std::vector<int64_t> checkpoint_steps(const std::string& folder);

// The folder itself, or the newest whole checkpoint in it.
std::string model_folder(const std::string& path);

// For the one rank that makes and renames. All throw UserError where the disk refuses.
class CheckpointFolder {
 public:
  // Makes the folder and locks it: another run that writes here is refused. The lock ends with the process, however
  // that ends. What a killed run left unfinished is removed.
  explicit CheckpointFolder(std::string path);
  // What was begun and not committed is removed.
  ~CheckpointFolder();
  CheckpointFolder(const CheckpointFolder&) = delete;
  CheckpointFolder& operator=(const CheckpointFolder&) = delete;

  // Makes the unfinished folder of a step.
  void begin(int64_t step);
  // It is whole, and each of its files is on the disk: gives it its name. Then all but the newest `keep` go; 0: none.
  void commit(int64_t keep);

 private:
  void remove_unfinished() const;
  void keep_newest(int64_t keep) const;

  std::string path_;
  std::unique_ptr<OpenFile> lock_;
  std::optional<int64_t> begun_;
};

}  // namespace ninefold
