#include "common/train/checkpoint.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "common/base/report.h"
#include "common/comm/control.h"
#include "common/nn/replace.h"
#include "common/train/gather.h"
#include "common/train/model_tensors.h"

namespace ninefold {
namespace {

std::string model_path(const std::string& folder) { return folder + "/model.safetensors"; }
std::string optimizer_path(const std::string& folder) { return folder + "/optimizer.safetensors"; }
std::string trainer_path(const std::string& folder) { return folder + "/trainer.json"; }

// Of the options, those without which a run that goes on is another run.
constexpr const char* kept_options[] = {"seed", "optimizer"};

}  // namespace

Checkpoints::Checkpoints(const TrainOptions& options, const Options& command_line, const Task& task, const Mesh& mesh,
                         Model& model, Optimizer& optimizer, LossScaler& scaler)
    : options_(options),
      command_line_(command_line),
      task_(task),
      mesh_(mesh),
      world_(mesh.world()),
      model_(model),
      parameters_(parameters_of(model)),
      optimizer_(optimizer),
      scaler_(scaler),
      format_(task.format(options.precision().stored)),
      model_tensors_(tensors_of_model(model, format_)),
      optimizer_tensors_(tensors_of_optimizer(optimizer, format_)),
      model_file_(model_tensors_, mesh),
      optimizer_file_(optimizer_tensors_, mesh) {
  const CheckpointOptions& wanted = options.checkpoint;
  if (wanted.folder.empty()) return;
  termination_ = std::make_unique<Termination>();
  if (world_.rank() != 0) return;
  folder_ = std::make_unique<CheckpointFolder>(wanted.folder);
  const std::vector<int64_t> steps = checkpoint_steps(wanted.folder);
  require(wanted.resume || steps.empty(),
          "--checkpoint {}: there are checkpoints up to step {} already; add --resume to go on from there, or choose "
          "another folder",
          wanted.folder, steps.empty() ? 0 : steps.back());
}

Checkpoints::~Checkpoints() = default;

RunPosition Checkpoints::load() {
  const OutsideTheBooks outside(world_);
  const CheckpointOptions& wanted = options_.checkpoint;
  std::vector<int64_t> newest;
  if (wanted.resume && world_.rank() == 0) newest = checkpoint_steps(wanted.folder);
  if (!newest.empty()) newest = {newest.back()};
  newest = control::broadcast(world_.group(), newest);
  if (!newest.empty()) return load_checkpoint(newest[0]);
  if (!wanted.init_from.empty()) load_model(wanted.init_from);
  return {};
}

RunPosition Checkpoints::load_checkpoint(int64_t step) {
  const std::string path = checkpoint_path(options_.checkpoint.folder, step);
  const ModelFolder model(path);
  require_same_model(model.config(), path + "/config.json");
  const SafetensorsFile states(optimizer_path(path));
  const RunPosition position = read_trainer_json(trainer_path(path));
  require(position.step == step, "{} is of step {}, whatever the folder's name says", trainer_path(path),
          position.step);
  load_tensors(model.tensors(), model_path(path), model_tensors_, /*converts=*/false);
  load_tensors(states.tensors(), optimizer_path(path), optimizer_tensors_, /*converts=*/false);
  if (world_.rank() == 0) {
    fmt::print("{}{}going on after step {} from {}\n",
               warning_of_extra_tensors(model.tensors(), model_path(path), model_tensors_),
               warning_of_extra_tensors(states.tensors(), optimizer_path(path), optimizer_tensors_), step, path);
  }
  return position;
}

// Master values come from the file too, in all its digits.
void Checkpoints::load_model(const std::string& path) {
  const ModelFolder model(path);
  require_same_model(model.config(), path + "/config.json");
  load_tensors(model.tensors(), path, model_tensors_, /*converts=*/true);
  load_tensors(model.tensors(), path, master_values(optimizer_, format_), /*converts=*/true);
  if (world_.rank() == 0) {
    fmt::print("{}beginning with the parameters of {}\n",
               warning_of_extra_tensors(model.tensors(), path, model_tensors_), path);
  }
}

void Checkpoints::require_same_model(const nlohmann::json& stored, const std::string& path) const {
  const nlohmann::ordered_json& own = format_.config;
  const bool is_llama = own.contains("hidden_act");
  // As it would be written here, whatever a file may leave out.
  const nlohmann::json theirs =
      is_llama ? nlohmann::json(transformers_config(llama_config_in(stored, path), Dtype::f32, 0)) : stored;
  for (const auto& [key, value] : own.items()) {
    if (key == "dtype" || key == "max_position_embeddings" || key == "router_aux_loss_coef") continue;  // may differ
    require(theirs.contains(key) && theirs[key] == nlohmann::json(value),
            "{} is of another model: {} is {} there, and {} in this run", path, key,
            theirs.contains(key) ? theirs[key].dump() : "absent", value.dump());
  }
}

bool Checkpoints::after_step(const RunPosition& position) {
  if (options_.checkpoint.folder.empty()) return false;
  const OutsideTheBooks outside(world_);
  struct Flags {
    bool is_to_end, is_written;
  };
  const auto all = control::all_gather(world_.group(), Flags{termination_->is_requested(), is_written()});
  const bool ends = std::any_of(all.begin(), all.end(), [](const Flags& flags) { return flags.is_to_end; });
  if (background_ && std::all_of(all.begin(), all.end(), [](const Flags& flags) { return flags.is_written; })) commit();

  const bool is_last = ends || position.step == options_.steps;
  const int64_t every = options_.checkpoint.every;
  if (is_last || (every > 0 && position.step % every == 0)) write(position, is_last);
  return ends;
}

// `waits`: returns when it is whole, under whatever options.
void Checkpoints::write(const RunPosition& position, bool waits) {
  if (background_) commit();
  unfinished_ = position.step;
  const std::string path = unfinished_path(options_.checkpoint.folder, position.step);
  if (folder_) {
    folder_->begin(position.step);
    write_file_atomically(path + "/config.json", format_.config.dump(2) + "\n");
    write_file_atomically(trainer_path(path), trainer_json(position));
    create_shared_file(model_path(path), model_file_.header(), model_file_.bytes());
    create_shared_file(optimizer_path(path), optimizer_file_.header(), optimizer_file_.bytes());
  }
  world_.group().barrier();
  if (options_.checkpoint.async) {
    start_background(path);
    if (waits) commit();
    return;
  }
  const bool in_place = is_written_in_place(world_.device());
  const Snapshot snapshot = in_place ? Snapshot() : snapshot_of(world_.device(), {&model_file_, &optimizer_file_});
  write_together(model_path(path), in_place ? model_file_.parts() : snapshot.files[0]);
  write_together(optimizer_path(path), in_place ? optimizer_file_.parts() : snapshot.files[1]);
  commit();
}

void Checkpoints::start_background(const std::string& path) {
  background_ = std::make_unique<Background>();
  Snapshot snapshot = snapshot_of(world_.device(), {&model_file_, &optimizer_file_});
  background_->copy = snapshot.memory;
  auto model = std::move(snapshot.files[0]), states = std::move(snapshot.files[1]);
  background_->written = std::async(std::launch::async, [path, model = std::move(model), states = std::move(states)] {
    write_alone(model_path(path), model);
    write_alone(optimizer_path(path), states);
  });
}

bool Checkpoints::is_written() const {
  return background_ && background_->written.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

// When all ranks have written all of it.
void Checkpoints::commit() {
  if (background_) {
    // Short waits: the disk may need longer than a rank may wait for another.
    while (!control::all_true(world_.group(), is_written())) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    background_->written.get();
    background_.reset();
  }
  world_.group().barrier();
  if (!folder_) return;
  folder_->commit(options_.checkpoint.keep);
  fmt::print("checkpoint: {} ({})\n", checkpoint_path(options_.checkpoint.folder, unfinished_),
             human_bytes(static_cast<double>(model_file_.bytes() + optimizer_file_.bytes())));
  std::fflush(stdout);
}

int64_t Checkpoints::predict_snapshot_bytes() const {
  if (!options_.checkpoint.async && is_written_in_place(world_.device())) return 0;
  const Dtype stored = options_.precision().stored;
  int64_t own = 0;
  for (const Parameter* parameter : parameters_) {
    if (!holds_first_copy(parameter->placement, mesh_)) continue;
    for (const Piece& piece : parameter->placement.pieces(parameter->shape)) own += piece.length;
  }
  int64_t buffers = 0;  // f32, on the first rank
  for_each_buffer(model_, [&](const std::string&, const Buffer& buffer) { buffers += elements(buffer.shape); });
  if (world_.rank() > 0) buffers = 0;
  const int64_t states = optimizer_tensors(options_.optimizer, stored) * size_of(Dtype::f32);
  return own * (size_of(stored) + states) + buffers * size_of(Dtype::f32);
}

std::string Checkpoints::trainer_json(const RunPosition& position) const {
  const int64_t rows = options_.batch * task_.rows_per_sample();
  const LossScaler::State scale = scaler_.state();
  nlohmann::ordered_json json = {{"step", position.step},
                                 {"updates", optimizer_.steps()},
                                 {"data", {{"batches", position.data_step}, {"rows", position.data_step * rows}}},
                                 {"loss_scale", {{"scale", scale.scale}, {"good_steps", scale.good_steps}}},
                                 {"seed", options_.seed}};
  for (const MeshDimension& dimension : mesh_.dimensions()) json["mesh"][dimension.name] = dimension.size;
  json["options"] = command_line_.values();
  return json.dump(2) + "\n";
}

RunPosition Checkpoints::read_trainer_json(const std::string& path) {
  const nlohmann::json json = read_json(path);
  const nlohmann::json now = nlohmann::json::parse(command_line_.values().dump());
  RunPosition position;
  try {
    for (const char* option : kept_options) {
      if (!now.contains(option)) continue;
      require(json.at("options").at(option) == now[option], "{}: --{} was {}, and is {} now; give the same to go on",
              path, option, json["options"][option].dump(), now[option].dump());
    }
    position.step = json.at("step").get<int64_t>();
    // Where a batch is another one now, as many of those as fit into what was taken.
    position.data_step = json.at("data").at("rows").get<int64_t>() / (options_.batch * task_.rows_per_sample());
    optimizer_.set_steps(json.at("updates").get<int64_t>());
    scaler_.restore(
        {json.at("loss_scale").at("scale").get<double>(), json.at("loss_scale").at("good_steps").get<int64_t>()});
  } catch (const nlohmann::json::exception& error) {
    require(false, "{} is no checkpoint's: {}", path, error.what());
  }
  require(position.step >= 0 && position.data_step >= 0, "{} has numbers below 0", path);
  return position;
}

}  // namespace ninefold
