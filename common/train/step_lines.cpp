#include "common/train/step_lines.h"

#include "common/train/routing.h"

namespace ninefold {

std::string step_heading(const RunRecord& record, bool scales) {
  return fmt::format("{:>7} {:>9} {:>10} {:>9} {}{:>12} {:>10} {:>7}{}{}\n", "step", "loss", "grad norm",
                     record.has_virtual_time ? "wall ms" : "ms",
                     record.has_virtual_time ? fmt::format("{:>10} ", "virtual ms") : "", record.unit + "/s", "GFLOP/s",
                     "% peak", record.steps.back().routing ? routing_heading() : "",
                     scales ? fmt::format(" {:>10}", "loss scale") : "");
}

std::string step_line(const RunRecord& record, bool scales, double peak) {
  const StepRecord& step = record.steps.back();
  const double flops = record.flops_per_row * step.rows_per_second;
  return fmt::format(
      "{:>7} {:>9.5f} {:>10.4f} {:>9.1f} {}{:>12.0f} {:>10.1f} {:>7}{}{}\n", step.step, step.loss, step.gradient_norm,
      step.milliseconds, record.has_virtual_time ? fmt::format("{:>10.3f} ", step.virtual_milliseconds) : "",
      step.rows_per_second, flops * 1e-9, peak > 0 ? fmt::format("{:.1f}", 100 * flops / peak) : "-",
      step.routing ? routing_columns(*step.routing) : "",
      scales ? fmt::format(" {:>10}{}", step.loss_scale, step.skipped ? "  overflow: skipped" : "") : "");
}

}  // namespace ninefold
