#include "09_combined_3d/comparison/write.h"

#include <nlohmann/json.hpp>

namespace ninefold::comparison {
namespace {

using nlohmann::ordered_json;

ordered_json or_null(std::optional<double> value) { return value ? ordered_json(*value) : ordered_json(nullptr); }

ordered_json json_of(const Figures& figures) {
  const Speed& speed = figures.speed;
  ordered_json json = {{"ms_per_step", speed.milliseconds},
                       {"tokens_per_second", speed.tokens_per_second},
                       {"efficiency", or_null(figures.efficiency)},
                       {"exposed_ms_per_step", speed.exposed_milliseconds}};
  if (speed.bubble) json["bubble"] = *speed.bubble;
  return json;
}

ordered_json json_of(const Row& row) {
  ordered_json json = {{"technique", row.technique.name},
                       {"ranks", row.technique.ranks()},
                       {"mesh", mesh_text(row.technique)},
                       {"command", row.command},
                       {"loss_difference", or_null(row.loss_difference)}};
  if (row.here) json["here"] = json_of(*row.here);
  json["memory"] = row.memory;
  json["traffic"] = row.traffic;
  json["virtual"] = ordered_json::object();
  for (const auto& [profile, figures] : row.on) json["virtual"][profile] = json_of(figures);
  if (!row.note.empty()) json["note"] = row.note;
  if (!row.failure.empty()) json["failure"] = row.failure;
  return json;
}

ordered_json json_of(const ScalingPoint& point) {
  ordered_json json = {{"cluster", point.profile},
                       {"technique", point.technique.name},
                       {"ranks", point.technique.ranks()},
                       {"mesh", mesh_text(point.technique)},
                       {"batch", point.batch},
                       {"length", point.length}};
  if (point.figures) json.update(json_of(*point.figures));
  if (!point.failure.empty()) json["failure"] = point.failure;
  return json;
}

ordered_json json_of(const Workload& work) {
  return {{"layers", work.layers}, {"dim", work.dim},     {"heads", work.heads},   {"kv_heads", work.kv_heads},
          {"ffn", work.ffn},       {"vocab", work.vocab}, {"length", work.length}, {"batch", work.batch},
          {"dtype", work.dtype},   {"seed", work.seed}};
}

}  // namespace

nlohmann::ordered_json json_of(const Results& results) {
  ordered_json json = {{"ranks", results.ranks},
                       {"cores", results.cores},
                       {"processor", results.processor},
                       {"model", json_of(results.work)}};
  json["clusters"] = ordered_json::array();
  for (const Profile& profile : results.profiles)
    json["clusters"].push_back({{"name", profile.name}, {"note", profile.note}});
  json["rows"] = ordered_json::array();
  for (const Row& row : results.rows) json["rows"].push_back(json_of(row));
  json["left_out"] = ordered_json::array();
  for (const Misfit& one : results.left_out)
    json["left_out"].push_back({{"technique", one.name}, {"reason", one.reason}});
  json["scaling"] = results.scaling;
  json["points"] = ordered_json::array();
  for (const ScalingPoint& point : results.points) json["points"].push_back(json_of(point));
  return json;
}

}  // namespace ninefold::comparison
