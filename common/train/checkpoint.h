// Checkpoints: what a run leaves on the disk to go on from, on this mesh or another. A checkpoint is a folder that
// transformers reads as a model (config.json, model.safetensors), with what only training needs beside it:
//   optimizer.safetensors   master values and states, under their names and those of the parameters
//   trainer.json            steps, position in the data, seed, loss scale, options
// All ranks write at once, each its own elements; tensors are whole, so it does not matter who reads which part.
#pragma once

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "common/base/termination.h"
#include "common/comm/mesh.h"
#include "common/optim/loss_scale.h"
#include "common/optim/optimizer.h"
#include "common/train/checkpoint_folder.h"
#include "common/train/options.h"
#include "common/train/task.h"
#include "common/train/tensor_files.h"
#include "common/train/transformers.h"

namespace ninefold {

// How far a run has come.
struct RunPosition {
  int64_t step = 0;       // steps made
  int64_t data_step = 0;  // global batches taken; other than `step` where the batch or the length has changed
};

class Checkpoints {
 public:
  // All that is passed outlives it. Throws UserError where the folder is in use, or holds checkpoints that nobody wants
  // to go on from.
  Checkpoints(const TrainOptions& options, const Options& command_line, const Task& task, const Mesh& mesh,
              Model& model, Optimizer& optimizer, LossScaler& scaler);
  ~Checkpoints();

  // Takes over the newest checkpoint, or the model of --init-from, where it is asked for and there is one, into what
  // this rank owns. Throws UserError for one of another model, or a damaged one. All ranks call it, once, first.
  RunPosition load();

  // After each step, on all ranks: writes a checkpoint where one is due. True where a SIGTERM on any rank has asked for
  // the end of the run.
  bool after_step(const RunPosition& position);

  // By formula: the bytes of the copy that this rank writes from while training goes on; 0 where it does not.
  int64_t predict_snapshot_bytes() const;

 private:
  // A copy of what this rank writes, and the thread that writes it.
  struct Background {
    Tensor copy;
    std::future<void> written;
  };
  RunPosition load_checkpoint(int64_t step);
  void load_model(const std::string& path);
  void require_same_model(const nlohmann::json& stored, const std::string& path) const;
  void write(const RunPosition& position, bool waits);
  void start_background(const std::string& path);
  bool is_written() const;
  void commit();
  std::string trainer_json(const RunPosition& position) const;
  RunPosition read_trainer_json(const std::string& path);

  const TrainOptions& options_;
  const Options& command_line_;
  const Task& task_;
  const Mesh& mesh_;
  World& world_;
  Model& model_;
  std::vector<Parameter*> parameters_;
  Optimizer& optimizer_;
  LossScaler& scaler_;
  ModelFormat format_;
  std::vector<CarriedTensor> model_tensors_, optimizer_tensors_;
  TensorFile model_file_, optimizer_file_;
  std::unique_ptr<CheckpointFolder> folder_;  // on rank 0
  std::unique_ptr<Termination> termination_;  // where there is a folder
  int64_t unfinished_ = 0;                    // the step whose checkpoint is being written
  std::unique_ptr<Background> background_;
};

}  // namespace ninefold
