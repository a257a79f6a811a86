#include "lwm/vision_train/learner.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>

#include "lwm/base/error.h"
#include "lwm/base/random.h"
#include "lwm/checkpoint/tensor_file.h"

namespace lwm::vision_train {
namespace {

constexpr uint64_t kDiscriminatorStream = 11, kFeatureStream = 12, kCodebookStream = 13;

uint64_t SeedOf(const config::VqganTrainConfig& config, uint64_t stream) {
  return DeriveKey(static_cast<uint64_t>(config.train.seed), stream);
}

double Value(const at::Tensor& scalar) { return scalar.defined() ? scalar.item<double>() : 0.0; }

}  // namespace

Learner::Learner(const config::VqganTrainConfig& config, dist::Communicator& world)
    : config_(config),
      world_(world),
      dtype_(checkpoint::ToScalarType(config.train.dtype)),
      schedule_(run::MakeSchedule(config.optimizer, config.train.steps)),
      weights_(vision::RandomVqganWeights(sizes(), static_cast<uint64_t>(config.train.seed))) {
  const bool learns_codebook = config.codebook.update == "loss";
  std::vector<NamedWeight> trained;
  std::string codebook_name;  // whose rows are moved by other means too
  vision::ForEachWeight(sizes(), weights_, [&](const vision::VqganSpec& spec, at::Tensor& weight) {
    const bool is_codebook = &weight == &weights_.codebook_VC;
    if (is_codebook) codebook_name = spec.name;
    if (!is_codebook || learns_codebook) trained.emplace_back(spec.name, weight);
  });
  parameters_ = std::make_unique<FlatParameters>(std::move(trained), dtype_, codebook_name);
  optimizer_ = std::make_unique<FlatAdamW>(
      *parameters_, AdamWSettings{.beta1 = config.optimizer.beta1,
                                  .beta2 = config.optimizer.beta2,
                                  .eps = config.optimizer.eps,
                                  .weight_decay = config.optimizer.weight_decay});
  average_n_ = parameters_->value_n().clone();
  codebook_ = std::make_unique<Codebook>(config.codebook, config.train.steps,
                                         SeedOf(config, kCodebookStream), weights_.codebook_VC);
  if (config.loss.adversarial > 0)
    adversary_ = std::make_unique<Adversary>(config.loss, config.optimizer,
                                             SeedOf(config, kDiscriminatorStream));
  if (config.loss.perceptual == 0) return;
  if (config.loss.perceptual_features == "discriminator") {
    perceptual_ = [this](const at::Tensor& a_NHWC, const at::Tensor& b_NHWC) {
      return adversary_->FeatureDistance(a_NHWC, b_NHWC);
    };
    return;
  }
  features_ =
      config.loss.perceptual_features == "random"
          ? FeatureNet::Random(config.loss.perceptual_channels, SeedOf(config, kFeatureStream))
          : FeatureNet::Read(config.loss.perceptual_features);
  perceptual_ = [this](const at::Tensor& a_NHWC, const at::Tensor& b_NHWC) {
    return features_->Distance(a_NHWC, b_NHWC);
  };
}

StepOutcome Learner::Step(int64_t step, const at::Tensor& images_NHWC, int64_t first,
                          int64_t batch) {
  // Order of a step: generator (loss, backward, sum over ranks, clip, update), then the codebook
  // with the latents of this pass, then the discriminator on the same reconstructions. Means times
  // `share` add up over ranks to the mean of the global batch.
  const double share = static_cast<double>(images_NHWC.size(0)) / static_cast<double>(batch);
  // Anew each step: it computes the codebook's norms, which change; the other weights are shared.
  const vision::Vqgan vqgan(sizes(), weights_, dtype_);
  const bool quantise = !codebook_->IsWarmup(step);
  const Pass pass = RunPass(vqgan, weights_.codebook_VC, images_NHWC, quantise, config_.loss,
                            config_.codebook, perceptual_);
  at::Tensor loss = pass.loss;
  at::Tensor adversarial;
  const bool plays = adversary_ && adversary_->IsOn(step);
  if (plays) {
    adversarial =
        adversary_->GeneratorTerm(step, pass, weights_.decoder.conv_out.weight_OIHW, share, world_);
    loss = loss + adversarial;
  }
  (loss * share).backward();
  parameters_->TakeGradients();
  SumGradients(world_, *parameters_);

  StepOutcome outcome;
  outcome.lr = run::LearningRate(schedule_, step);
  const Clip clip = ClipTo(config_.optimizer.clip_norm, *parameters_);
  outcome.grad_norm = clip.norm;
  optimizer_->Step(outcome.lr, clip.factor, AverageAfter(step));
  const Batch gathered = GatherLatents(pass, first, batch);
  outcome.revived = codebook_->AfterStep(step, gathered.z_RC, gathered.code_R);
  if (quantise)
    outcome.codes_used = MeasureUse(gathered.code_R, sizes().num_vq_embeddings).used_share;
  if (plays)
    outcome.discriminator = adversary_->Learn(images_NHWC, pass.output_NHWC, share, world_);

  std::array<double, 7> sums = {share * Value(loss),
                                share * Value(pass.l1),
                                share * Value(pass.mse),
                                share * Value(pass.commitment),
                                share * Value(pass.perceptual),
                                share * Value(adversarial),
                                outcome.discriminator};
  world_.AllReduceSum(std::span<double>(sums));
  std::tie(outcome.loss, outcome.l1, outcome.mse, outcome.commitment, outcome.perceptual,
           outcome.adversarial, outcome.discriminator) = std::tuple_cat(sums);
  return outcome;
}

// Every rank fills in its own rows; adding zeros changes no bit, so all ranks see the same latents
// in the same order however many they are. Codes travel with them as f32, exact below 2^24.
Learner::Batch Learner::GatherLatents(const Pass& pass, int64_t first, int64_t batch) {
  c10::NoGradGuard no_grad;
  const int64_t dim = pass.z_NhwC.size(3);
  const at::Tensor z_RC = pass.z_NhwC.reshape({-1, dim});
  const int64_t rows = pass.z_NhwC.size(1) * pass.z_NhwC.size(2);
  const at::Tensor all_RC = at::zeros({batch * rows, dim + 1}, at::kFloat);
  const at::Tensor own_RC = all_RC.narrow(0, first * rows, z_RC.size(0));
  own_RC.narrow(1, 0, dim).copy_(z_RC);
  if (pass.code_R.defined()) own_RC.select(1, dim).copy_(pass.code_R);
  if (world_.size() > 1)
    world_.AllReduceSum(std::span(all_RC.data_ptr<float>(), static_cast<size_t>(all_RC.numel())));
  return {all_RC.narrow(1, 0, dim).contiguous(), all_RC.select(1, dim).to(at::kLong)};
}

// The decay grows to its value as in TensorFlow's ExponentialMovingAverage with num_updates, so
// that the random start is soon forgotten.
RunningAverage Learner::AverageAfter(int64_t step) const {
  const double done = static_cast<double>(step);
  return {average_n_, 1 - std::min(config_.train.average, (1 + done) / (10 + done))};
}

vision::VqganWeights Learner::Averaged() {
  c10::NoGradGuard no_grad;
  const std::map<std::string, at::Tensor> parts = parameters_->Split(average_n_);
  vision::VqganWeights averaged = weights_;
  vision::ForEachWeight(sizes(), averaged, [&](const vision::VqganSpec& spec, at::Tensor& weight) {
    const bool is_codebook = &weight == &averaged.codebook_VC;
    weight =
        (is_codebook ? weight.detach() : parts.at(spec.name)).clone(at::MemoryFormat::Contiguous);
  });
  return averaged;
}

std::vector<std::pair<std::string, at::Tensor>> Learner::State() {
  std::vector<std::pair<std::string, at::Tensor>> state = {
      {"flat.value", parameters_->value_n()},
      {"flat.first_moment", optimizer_->first_n()},
      {"flat.second_moment", optimizer_->second_n()},
      {"flat.average", average_n_},
      {"codebook", weights_.codebook_VC.detach()}};
  for (const auto& [name, tensor] : codebook_->State()) state.emplace_back(name, *tensor);
  if (adversary_) {
    state.emplace_back("discriminator.flat.value", adversary_->parameters().value_n());
    state.emplace_back("discriminator.flat.first_moment", adversary_->optimizer().first_n());
    state.emplace_back("discriminator.flat.second_moment", adversary_->optimizer().second_n());
  }
  return state;
}

void Learner::LoadState(const std::map<std::string, at::Tensor>& tensors, int64_t steps_done,
                        const std::string& where) {
  c10::NoGradGuard no_grad;
  const auto find = [&](const std::string& name) {
    const auto found = tensors.find(name);
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, found != tensors.end(), where, ": there is no tensor ",
                   name, "; was the run begun with other settings of [loss]?");
    return found->second;
  };
  for (auto& [name, tensor] : State()) {
    if (name == "codebook.recent") continue;  // as long as the warm-up has come
    const at::Tensor stored = find(name);
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, stored.sizes() == tensor.sizes(), where, ": ", name,
                   " is ", stored.sizes(), ", this recipe wants ", tensor.sizes(),
                   "; the run was begun with another model: choose another train.run_folder");
    tensor.copy_(stored);
  }
  for (auto& [name, tensor] : codebook_->State())
    if (name == "codebook.recent") *tensor = find(name).clone();
  parameters_->Refresh();
  optimizer_->set_steps(steps_done);
  if (adversary_)
    adversary_->optimizer().set_steps(
        std::max<int64_t>(0, steps_done - config_.loss.adversarial_start));
}

}  // namespace lwm::vision_train
