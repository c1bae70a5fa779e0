// How the books are told: tables for people, JSON for programs.
#include <nlohmann/json.hpp>

#include "common/base/report.h"
#include "common/tensor/kernels.h"
#include "common/train/books.h"
#include "common/train/routing.h"

namespace ninefold {
namespace {

std::string or_dash(int64_t bytes) { return bytes > 0 ? human_bytes(static_cast<double>(bytes)) : "-"; }

std::string memory_verdict(const MemoryRecord& entry) {
  if (entry.predicted == 0) return "";
  if (entry.agrees()) return "equal to the byte";
  return fmt::format("DIFFERENT: {} predicted, {} measured", entry.predicted, entry.measured_peak);
}

std::string memory_table(const RunRecord& record) {
  Table table({"memory", "predicted", "measured peak", ""});
  for (const MemoryRecord& entry : record.memory) {
    if (entry.predicted == 0 && entry.measured_peak == 0) continue;
    table.add_row({std::string(name_of(entry.kind)), or_dash(entry.predicted), or_dash(entry.measured_peak),
                   memory_verdict(entry)});
  }
  table.add_row({"reserved from the system", "", or_dash(record.reserved_bytes), ""});
  if (record.oracle_bytes > 0) table.add_row({"oracle (outside the books)", "", or_dash(record.oracle_bytes), ""});
  return table.text();
}

// A token that an expert drops is not computed: then the formula is a bound.
std::string flops_verdict(const RunRecord& record, const TrainOptions& options) {
  const bool drops = options.llama.moe.capacity_factor.has_value();
  const std::string predicted = human_rate(record.predicted_flops_per_step, "FLOP");
  if (record.executed_flops_per_step == record.predicted_flops_per_step) return "as predicted";
  if (drops && record.executed_flops_per_step < record.predicted_flops_per_step) {
    return fmt::format("below the {} predicted, as tokens were dropped", predicted);
  }
  return fmt::format("DIFFERENT, {} predicted", predicted);
}

// Only where layers compute twice do the FLOPs executed tell more than the model's.
std::string recomputation_text(const RunRecord& record, const TrainOptions& options) {
  if (options.recomputation.every == 0) return "";
  return fmt::format(
      "{} per step executed, {:.3f} times the model's: {}\n", human_rate(record.executed_flops_per_step, "FLOP"),
      record.executed_flops_per_step / (record.flops_per_row * record.rows_per_step()), flops_verdict(record, options));
}

std::string traffic_verdict(const TrafficEntry& entry) {
  const std::string library = entry.by_formula ? ", by formula: the library sends" : "";
  if (entry.is_as_predicted()) return "equal to the byte" + library;
  return fmt::format("DIFFERENT: {} calls, {} messages, {} bytes predicted, {}, {}, {} sent{}", entry.predicted_calls,
                     entry.predicted_messages, entry.predicted_bytes, entry.calls, entry.messages, entry.bytes,
                     library);
}

std::string traffic_table(const RunRecord& record) {
  Table table({"traffic of rank 0", "operation", "calls/step", "messages/step", "predicted/step", "sent/step", ""});
  const auto steps = std::max<int64_t>(static_cast<int64_t>(record.steps.size()), 1);
  for (const auto& [dimension, operations] : record.traffic) {
    for (const auto& [operation, entry] : operations) {
      table.add_row({dimension, std::string(name_of(operation)), fmt::format("{}", entry.calls / steps),
                     fmt::format("{}", entry.messages / steps), or_dash(entry.predicted_bytes / steps),
                     or_dash(entry.bytes / steps), traffic_verdict(entry)});
    }
  }
  return table.text();
}

std::string difference_text(double difference, std::string_view scale) {
  return difference == 0 ? "bit-identical" : fmt::format("within {:.1e}{}", difference, scale);
}

std::string routing_verdict(const CheckResult& check) {
  if (check.routed_otherwise == 0) return "";
  return fmt::format("{} tokens routed otherwise than the serial model would, with score gaps of up to {:.1e}\n",
                     check.routed_otherwise, check.largest_gap);
}

std::string verdict_text(const RunRecord& record, const TrainOptions& options) {
  const CheckResult& check = record.check;
  std::string books = record.books_balanced  ? "books balanced"
                      : record.books_agree() ? "BOOKS of another rank DIFFER from their formulas"
                                             : "BOOKS DIFFER from their formulas";
  if (check.steps == 0) return books + "; not checked against the serial model\n";
  return fmt::format("{}: {} steps against the serial model ({}, {}): loss {}, every gradient {}{}, update {}; {}\n",
                     check.passed ? "check passed" : "CHECK FAILED", check.steps, to_string(options.precision()),
                     name_of(record.numerics), difference_text(check.loss_max_abs, ""),
                     difference_text(check.gradient_max_rel, " of its scale"),
                     check.worst_parameter.empty() ? "" : fmt::format(" ({})", check.worst_parameter),
                     difference_text(check.parameter_max_rel, " of its norm"), books) +
         routing_verdict(check);
}

std::string speed_text(const RunRecord& record) {
  std::string text = fmt::format("{:.1f} ms{} per step (median), {:.0f} {}/s, {}", record.milliseconds_per_step(),
                                 record.has_virtual_time ? " of wall time" : "", record.rows_per_second(), record.unit,
                                 human_rate(record.flops_per_second(), "FLOP/s"));
  if (record.matmul_peak > 0) {
    text += fmt::format(" = {:.1f} % of the matmul peak {} of {} ranks", 100 * record.peak_fraction(),
                        human_rate(record.matmul_peak, "FLOP/s"), record.ranks);
  }
  return text + "\n";
}

// A line of what depends on the moment, and one of what does not.
std::string waiting_text(const RunRecord& record) {
  const ExposedCommunication& exposed = record.exposed;
  std::string text = fmt::format("exposed communication: {:.1f} ms of wall time per step\n", exposed.wall_milliseconds);
  if (!record.has_virtual_time) return text;
  text += fmt::format("virtual time: {:.3f} ms per step (median), exposed communication {:.3f} ms",
                      record.virtual_milliseconds_per_step(), exposed.virtual_milliseconds);
  for (const auto& [dimension, milliseconds] : exposed.by_dimension) {
    text += fmt::format(", {} {:.3f} ms", dimension, milliseconds);
  }
  return text + "\n";
}

std::string bubble_text(const RunRecord& record) {
  if (!record.bubble) return "";
  return fmt::format("bubble: {:.4f} predicted, {:.4f} measured in {} time\n", record.bubble->predicted,
                     record.bubble->measured, record.has_virtual_time ? "virtual" : "wall");
}

nlohmann::ordered_json exposed_json(const RunRecord& record) {
  nlohmann::ordered_json json = {{"wall_ms_per_step", record.exposed.wall_milliseconds}};
  if (!record.has_virtual_time) return json;
  json["virtual_ms_per_step"] = record.exposed.virtual_milliseconds;
  json["by_dimension"] = record.exposed.by_dimension;
  return json;
}

// `predicted` and `measured` are bytes; messages have a key of their own.
nlohmann::ordered_json traffic_json(const TrafficLedger::ByDimension& traffic) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [dimension, operations] : traffic) {
    for (const auto& [operation, entry] : operations) {
      const nlohmann::ordered_json messages = {{"predicted", entry.predicted_messages}, {"measured", entry.messages}};
      json[dimension][std::string(name_of(operation))] = {
          {"calls", entry.calls}, {"predicted", entry.predicted_bytes},       {"measured", entry.bytes},
          {"messages", messages}, {"predicted_calls", entry.predicted_calls}, {"by_formula", entry.by_formula}};
    }
  }
  return json;
}

nlohmann::ordered_json steps_json(const RunRecord& record, const TrainOptions& options) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const StepRecord& step : record.steps) {
    json.push_back({{"step", step.step},
                    {"loss", step.loss},
                    {"grad_norm", step.gradient_norm},
                    {"ms", step.milliseconds},
                    {record.unit + "_per_second", step.rows_per_second}});
    if (record.has_virtual_time) json.back()["virtual_ms"] = step.virtual_milliseconds;
    if (step.routing) json.back()["routing"] = routing_json(*step.routing);
    if (options.loss_scaler().enabled()) {
      json.back()["loss_scale"] = step.loss_scale;
      json.back()["skipped"] = step.skipped;
    }
  }
  return json;
}

}  // namespace

std::string summary_text(const RunRecord& record, const TrainOptions& options) {
  std::string text;
  if (!record.steps.empty()) {
    text +=
        speed_text(record) + recomputation_text(record, options) + waiting_text(record) + bubble_text(record) + "\n";
  }
  if (!record.steps.empty() && record.steps.back().routing) text += load_table(*record.steps.back().routing) + "\n";
  text += memory_table(record) + "\n";
  if (!record.traffic.empty()) text += traffic_table(record) + "\n";
  if (record.gather_error) {
    text +=
        fmt::format("gathered values are off by {:.2e} of their norm, rounded on their way\n", *record.gather_error);
  }
  if (record.check.f8_gradient_rel > 0) {
    text += fmt::format("products in f8: the serial gradient is {:.1e} of its norm away from f32's, the loss {:.1e}\n",
                        record.check.f8_gradient_rel, record.check.f8_loss_abs);
  }
  return text + verdict_text(record, options);
}

void write_report(const std::string& path, const RunRecord& record, const TrainOptions& options,
                  const Options& command_line, const Mesh& mesh) {
  nlohmann::ordered_json json;
  json["program"] = record.program;
  json["options"] = command_line.values();
  for (const MeshDimension& dimension : mesh.dimensions()) json["mesh"][dimension.name] = dimension.size;
  json["device"] = fmt::format("{}: {}", name_of(options.device), mesh.world().device()->kernels().description());
  json["ranks"] = record.ranks;
  json["steps"] = steps_json(record, options);
  json["summary"] = {{record.unit + "_per_second", record.rows_per_second()},
                     {"ms_per_step", record.milliseconds_per_step()},
                     {"model_flops_per_second", record.flops_per_second()},
                     {"matmul_peak_flops_per_second", record.matmul_peak},
                     {"matmul_peak_fraction", record.peak_fraction()},
                     {"executed_flops_per_step", record.executed_flops_per_step},
                     {"predicted_flops_per_step", record.predicted_flops_per_step}};
  if (record.has_virtual_time) json["summary"]["virtual_ms_per_step"] = record.virtual_milliseconds_per_step();
  if (record.bubble) {
    json["bubble"] = {{"predicted", record.bubble->predicted}, {"measured", record.bubble->measured}};
  }
  json["exposed_communication"] = exposed_json(record);
  if (record.gather_error) json["gather_error"] = *record.gather_error;
  for (const EvaluationRecord& found : record.evaluations) {
    json["evaluations"].push_back({{"step", found.step}, {"loss", found.loss}, {"accuracy", found.accuracy}});
  }
  json["check"] = {{"passed", record.check.passed},
                   {"steps", record.check.steps},
                   {"numerics", name_of(record.numerics)},
                   {"loss_max_abs", record.check.loss_max_abs},
                   {"gradient_max_rel", record.check.gradient_max_rel},
                   {"parameter_max_rel", record.check.parameter_max_rel},
                   {"worst_parameter", record.check.worst_parameter}};
  if (!record.steps.empty() && record.steps.back().routing) {
    json["check"]["routed_otherwise"] = record.check.routed_otherwise;
  }
  if (record.check.f8_gradient_rel > 0) {
    json["check"]["f8_gradient_rel"] = record.check.f8_gradient_rel;
    json["check"]["f8_loss_abs"] = record.check.f8_loss_abs;
  }
  for (const MemoryRecord& entry : record.memory) {
    json["memory"][std::string(name_of(entry.kind))] = {{"predicted", entry.predicted},
                                                        {"measured_peak", entry.measured_peak}};
  }
  json["memory"]["oracle"] = {{"predicted", 0}, {"measured_peak", record.oracle_bytes}};
  json["traffic"] = traffic_json(record.traffic);
  write_file_atomically(path, json.dump(2) + "\n");
}

}  // namespace ninefold
