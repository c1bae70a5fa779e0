// The models against PyTorch: logits, gradients, and three optimizer steps.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "common/nn/classifiers.h"
#include "common/nn/llama.h"
#include "common/optim/clip.h"
#include "common/optim/optimizer.h"
#include "tests/support/numbers.h"
#include "tests/support/safetensors.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

constexpr double f32_bound = 1e-5;
// Of bf16 and f16: five roundings.
double bound_of(Dtype dtype) { return 5 * rounding_of(dtype); }

double norm(const std::vector<double>& values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

std::vector<double> difference(const std::vector<double>& a, const std::vector<float>& b) {
  std::vector<double> result(a.size());
  for (size_t i = 0; i < a.size(); ++i) result[i] = a[i] - b.at(i);
  return result;
}

std::vector<double> widen(const std::vector<float>& values) { return {values.begin(), values.end()}; }

// |d_t| <= bound · max(|ref_t|, |ref| · sqrt(n_t / N))
void expect_within(const std::vector<double>& found, const std::vector<float>& reference, double all_norm,
                   int64_t all_size, double bound, const std::string& what) {
  ASSERT_EQ(found.size(), reference.size()) << what;
  const double share = static_cast<double>(reference.size()) / static_cast<double>(all_size);
  const double scale = std::max(norm(widen(reference)), all_norm * std::sqrt(share));
  EXPECT_LE(norm(difference(found, reference)), bound * scale) << what;
}

struct LlamaRun {
  explicit LlamaRun(Dtype dtype, const MoeConfig& moe = {})
      : golden(read_safetensors(fmt::format("{}/{}llama.safetensors", NINEFOLD_TEST_DATA, moe.experts ? "moe_" : ""))) {
    const auto number = [&](const char* key) { return std::stod(golden.metadata.at(key)); };
    LlamaConfig config{.dim = static_cast<int64_t>(number("hidden_size")),
                       .layers = static_cast<int64_t>(number("num_hidden_layers")),
                       .heads = static_cast<int64_t>(number("num_attention_heads")),
                       .kv_heads = static_cast<int64_t>(number("num_key_value_heads")),
                       .ffn = static_cast<int64_t>(number("intermediate_size")),
                       .vocab = static_cast<int64_t>(number("vocab_size")),
                       .rope_theta = number("rope_theta"),
                       .norm_eps = static_cast<float>(number("rms_norm_eps")),
                       .moe = moe};
    model = make_llama(config);
    materialize(*model, device, {.compute = dtype, .gradient = Dtype::f32}, 1);
    for (Parameter* parameter : parameters_of(*model)) {
      ops::copy_(parameter->value, held("parameter.", *parameter).on(device));
    }
  }

  // Weights of all experts lie in one tensor here, in the file each has its own:
  // layers.0.feed_forward.experts.E.w1.weight.
  GoldenTensor held(const std::string& kind, const Parameter& parameter) const {
    const size_t experts = parameter.name.find(".experts.");
    if (experts == std::string::npos) return golden[kind + parameter.name];
    GoldenTensor all{parameter.shape, {}, {}};
    const std::string before = parameter.name.substr(0, experts), after = parameter.name.substr(experts + 9);
    for (int64_t expert = 0; expert < parameter.shape[0]; ++expert) {
      const auto& one = golden[fmt::format("{}{}.experts.{}.{}.weight", kind, before, expert, after)].floats;
      all.floats.insert(all.floats.end(), one.begin(), one.end());
    }
    return all;
  }

  Tensor tokens() const { return golden["tokens"].on(device).reshape({32}); }
  Step step() const {
    Step step;
    std::vector<int32_t> positions(16);
    std::iota(positions.begin(), positions.end(), 0);
    step.rows_per_sample = 16;
    step.positions = Tensor::from(device, {16}, positions);
    step.targets = golden["targets"].on(device).reshape({32});
    step.global_targets = 32;
    return step;
  }
  double train_pass(RoutingRecord* routing = nullptr) const {
    for (Parameter* parameter : parameters_of(*model)) parameter->zero_gradient();
    Step step = this->step();
    step.routing = routing;
    return forward_backward(*model, tokens(), step) / 32;
  }
  void expect_gradients(double bound) const {
    double squares = 0;
    for (const Parameter* parameter : parameters_of(*model)) {
      squares += std::pow(norm(widen(held("gradient.", *parameter).floats)), 2);
    }
    for (const Parameter* parameter : parameters_of(*model)) {
      expect_within(doubles(parameter->gradient), held("gradient.", *parameter).floats, std::sqrt(squares),
                    parameter_count(*model), bound, parameter->name);
    }
  }

  DeviceHandle device = make_test_device();
  GoldenFile golden;
  std::unique_ptr<Model> model;
};

TEST(LlamaGolden, LogitsAndGradients) {
  const LlamaRun run(Dtype::f32);
  const auto [scores, loss_sum] = evaluate(*run.model, run.tokens(), run.step());
  const auto& logits = run.golden["logits"].floats;
  expect_within(doubles(scores), logits, 0, static_cast<int64_t>(logits.size()), f32_bound, "logits");
  EXPECT_NEAR(loss_sum / 32, run.golden["loss.0"].floats[0], 1e-6);
  EXPECT_NEAR(run.train_pass(), run.golden["loss.0"].floats[0], 1e-6);
  run.expect_gradients(f32_bound);
}

TEST(LlamaGolden, NarrowTypesStayWithinTheirPrecision) {
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
    const LlamaRun run(dtype);
    const auto [scores, loss_sum] = evaluate(*run.model, run.tokens(), run.step());
    const auto& logits = run.golden["logits"].floats;
    expect_within(doubles(scores), logits, 0, static_cast<int64_t>(logits.size()), bound_of(dtype), "logits");
    EXPECT_NEAR(loss_sum / 32, run.golden["loss.0"].floats[0], bound_of(dtype));
    run.train_pass();
    run.expect_gradients(bound_of(dtype));
  }
}

TEST(LlamaGolden, ThreeAdamwStepsWithClipping) {
  const LlamaRun run(Dtype::f32);
  const auto parameters = parameters_of(*run.model);
  const auto optimizer = make_optimizer(
      {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .decay_vectors = true}, parameters, 1);
  for (int step = 0; step < 3; ++step) {
    EXPECT_NEAR(run.train_pass(), run.golden[fmt::format("loss.{}", step)].floats[0], 1e-5);
    const double gradient_norm = std::sqrt(gradient_squares(parameters).value());
    const double expected = run.golden[fmt::format("gradient_norm.{}", step)].floats[0];
    EXPECT_NEAR(gradient_norm, expected, f32_bound * expected);
    optimizer->step(1e-3, clip_factor(gradient_norm, 1));
  }
  for (const Parameter* parameter : parameters) {
    expect_within(doubles(parameter->value), run.golden["after3." + parameter->name].floats, 0,
                  parameter_count(*run.model), f32_bound, parameter->name);
  }
}

// As Mixtral, with transformers' form of the balancing loss, which takes all layers and tokens together.
TEST(MoeLlamaGolden, LogitsLossesAndGradients) {
  const MoeConfig moe{.experts = 4, .top_k = 2, .balance_scope = BalanceScope::batch, .balance_coefficient = 0.02};
  const LlamaRun run(Dtype::f32, moe);
  EXPECT_EQ(run.golden.metadata.at("num_local_experts"), "4");
  EXPECT_EQ(run.golden.metadata.at("num_experts_per_tok"), "2");
  EXPECT_EQ(run.golden.metadata.at("router_aux_loss_coef"), "0.02");
  const auto [scores, loss_sum] = evaluate(*run.model, run.tokens(), run.step());
  const auto& logits = run.golden["logits"].floats;
  expect_within(doubles(scores), logits, 0, static_cast<int64_t>(logits.size()), f32_bound, "logits");
  RoutingRecord routing;
  const double cross_entropy = run.train_pass(&routing);
  EXPECT_NEAR(loss_sum / 32, cross_entropy, 1e-6);
  EXPECT_NEAR(cross_entropy, run.golden["cross_entropy"].floats[0], f32_bound);
  EXPECT_NEAR(routing.balance_loss(), run.golden["load_balancing_loss"].floats[0], f32_bound);
  EXPECT_NEAR(cross_entropy + 0.02 * routing.balance_loss(), run.golden["loss"].floats[0], f32_bound);
  run.expect_gradients(f32_bound);
}

// The values that the golden file was made with; see its metadata.
Tensor fill(const DeviceHandle& device, const Shape& shape, uint64_t salt, double scale) {
  std::vector<float> values(static_cast<size_t>(elements(shape)));
  for (uint64_t i = 0; i < values.size(); ++i) {
    const uint64_t word = (i * 2654435761u + salt * 40503u) & 0xffffffffu;
    values[i] = static_cast<float>((static_cast<double>(word) / 4294967296.0 - 0.5) * 2 * scale);
  }
  return Tensor::from(device, shape, values);
}

struct MnistRun {
  MnistRun()
      : golden(read_safetensors(NINEFOLD_TEST_DATA "/mnist_cnn.safetensors")),
        model(make_mnist_cnn(/*with_dropout=*/false)) {
    materialize(*model, device, {}, 1);
    const auto scales = nlohmann::json::parse(golden.metadata.at("scales"));
    uint64_t salt = 0;
    for (Parameter* parameter : parameters_of(*model)) {
      ops::copy_(parameter->value, fill(device, parameter->shape, ++salt, scales.at(parameter->name).get<double>()));
    }
    images = fill(device, {4, 1, 28, 28}, 100, 1.0);
  }
  double train_pass() const {
    for (Parameter* parameter : parameters_of(*model)) parameter->zero_gradient();
    return forward_backward(*model, images, step()) / 4;
  }
  Step step() const {
    Step step;
    step.targets = golden["targets"].on(device);
    step.global_targets = 4;
    return step;
  }

  // What the golden file holds of a parameter: all of it, or its first four rows.
  std::vector<double> held(const Parameter& parameter, const Tensor& tensor) const {
    return doubles(is_cut(parameter) ? tensor.rows(0, 4) : tensor);
  }
  const std::vector<float>& reference(const std::string& kind, const Parameter& parameter) const {
    return golden[kind + parameter.name + (is_cut(parameter) ? ".rows_0_4" : "")].floats;
  }
  static bool is_cut(const Parameter& parameter) { return parameter.name == "fc1.weight"; }

  DeviceHandle device = make_test_device();
  GoldenFile golden;
  std::unique_ptr<Model> model;
  Tensor images;
};

TEST(MnistCnnGolden, LogProbabilitiesAndGradients) {
  const MnistRun run;
  const auto [scores, loss_sum] = evaluate(*run.model, run.images, run.step());
  const auto& expected = run.golden["log_probabilities"].floats;
  expect_within(doubles(ops::log_softmax(scores)), expected, 0, 40, f32_bound, "log-probabilities");
  EXPECT_NEAR(loss_sum / 4, run.golden["loss.0"].floats[0], 1e-6);
  run.train_pass();
  double squares = std::pow(run.golden["gradient.fc1.weight.norm"].floats[0], 2);
  for (const Parameter* parameter : parameters_of(*run.model)) {
    if (!run.is_cut(*parameter)) squares += std::pow(norm(widen(run.reference("gradient.", *parameter))), 2);
  }
  for (const Parameter* parameter : parameters_of(*run.model)) {
    expect_within(run.held(*parameter, parameter->gradient), run.reference("gradient.", *parameter), std::sqrt(squares),
                  parameter_count(*run.model), f32_bound, parameter->name);
  }
}

TEST(MnistCnnGolden, ThreeAdadeltaSteps) {
  const MnistRun run;
  const auto parameters = parameters_of(*run.model);
  const auto optimizer = make_optimizer({.kind = OptimizerKind::adadelta, .eps = 1e-6, .rho = 0.9}, parameters, 1);
  for (int step = 0; step < 3; ++step) {
    EXPECT_NEAR(run.train_pass(), run.golden[fmt::format("loss.{}", step)].floats[0], 1e-5);
    optimizer->step(1.0, 1.0f);
  }
  for (const Parameter* parameter : parameters) {
    expect_within(run.held(*parameter, parameter->value), run.reference("after3.", *parameter), 0,
                  parameter_count(*run.model), f32_bound, parameter->name);
  }
}

}  // namespace
}  // namespace ninefold
