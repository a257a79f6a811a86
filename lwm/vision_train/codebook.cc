#include "lwm/vision_train/codebook.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "lwm/base/error.h"

namespace lwm::vision_train {
namespace {

constexpr uint64_t kStartStream = 1, kRevivalStream = 2;
constexpr int64_t kBlockRows = 4096;  // latents whose distances are held at once

struct Nearest {
  at::Tensor code_R, distance_R;  // i64; squared distance
};

Nearest FindNearest(const at::Tensor& x_RC, const at::Tensor& row_VC) {
  const at::Tensor norm_V = row_VC.square().sum(1);
  std::vector<at::Tensor> codes, distances;
  for (const at::Tensor& part_RC : x_RC.split(kBlockRows)) {
    const auto [least_R, code_R] = at::addmm(norm_V, part_RC, row_VC.t(), 1, -2).min(1);
    codes.push_back(code_R);
    distances.push_back((least_R + part_RC.square().sum(1)).clamp_min(0));
  }
  return {at::cat(codes), at::cat(distances)};
}

at::Tensor CountOf(const at::Tensor& code_R, const at::Tensor& like_VC) {
  return at::bincount(code_R, {}, like_VC.size(0)).to(like_VC.scalar_type());
}

// Row number drawn with a chance proportional to weight_R; its weight becomes 0. -1 when all are 0.
int64_t DrawOne(std::vector<double>& weight_R, Random& random) {
  double total = 0;
  for (const double weight : weight_R) total += weight;
  if (!(total > 0)) return -1;
  double left = random.Uniform() * total;
  size_t drawn = weight_R.size();
  for (size_t r = 0; r < weight_R.size() && left >= 0; ++r) {
    if (weight_R[r] <= 0) continue;
    drawn = r;
    left -= weight_R[r];
  }
  weight_R[drawn] = 0;
  return static_cast<int64_t>(drawn);
}

std::vector<double> ToVector(const at::Tensor& x_R) {
  const at::Tensor double_R = x_R.to(at::kDouble).contiguous();
  const auto* data = double_R.data_ptr<double>();
  return {data, data + double_R.numel()};
}

}  // namespace

Quantised StraightThrough(const at::Tensor& latents_NhwC, const at::Tensor& codebook_VC,
                          const at::Tensor& code_R, bool learn_codebook) {
  const at::Tensor row_NhwC =
      codebook_VC.index_select(0, code_R.to(at::kLong)).view(latents_NhwC.sizes());
  Quantised result;
  // Forward the code, backward the identity (Bengio et al. 2013; van den Oord et al. 2017, 3.2).
  result.latents_NhwC = latents_NhwC + (row_NhwC - latents_NhwC).detach();
  result.commitment = at::mse_loss(latents_NhwC, row_NhwC.detach());
  if (learn_codebook) result.codebook = at::mse_loss(row_NhwC, latents_NhwC.detach());
  return result;
}

at::Tensor KMeans(const at::Tensor& x_RC, int64_t rows, int64_t rounds, Random random) {
  LWM_REQUIRE(x_RC.size(0) >= rows, "k-means of ", x_RC.size(0), " latents into ", rows,
              " rows: want as many latents as rows");
  c10::NoGradGuard no_grad;
  std::vector<double> weight_R(static_cast<size_t>(x_RC.size(0)), 1.0);
  std::vector<int64_t> chosen;
  for (int64_t v = 0; v < rows; ++v) chosen.push_back(DrawOne(weight_R, random));
  at::Tensor row_VC = x_RC.index_select(0, at::from_blob(chosen.data(), {rows}, at::kLong).clone());
  for (int64_t round = 0; round < rounds; ++round) {
    const Nearest nearest = FindNearest(x_RC, row_VC);
    const at::Tensor count_V = CountOf(nearest.code_R, row_VC);
    const at::Tensor sum_VC = at::zeros_like(row_VC).index_add_(0, nearest.code_R, x_RC);
    const at::Tensor mean_VC = sum_VC / count_V.clamp_min(1).unsqueeze(1);
    const at::Tensor empty_V = at::nonzero(count_V == 0).squeeze(1);
    // A row that lost all latents takes over the latents that are served worst.
    if (empty_V.numel() > 0) {
      const int64_t moved = std::min(empty_V.numel(), x_RC.size(0));
      const at::Tensor far_R = std::get<1>(nearest.distance_R.topk(moved));
      mean_VC.index_copy_(0, empty_V.narrow(0, 0, moved), x_RC.index_select(0, far_R));
    }
    row_VC = mean_VC;
  }
  return row_VC;
}

Codebook::Codebook(const config::CodebookSection& options, int64_t steps, uint64_t seed,
                   at::Tensor codebook_VC)
    : options_(options), seed_(seed), codebook_VC_(std::move(codebook_VC)) {
  c10::NoGradGuard no_grad;
  const auto part = [&](double share) {
    return static_cast<int64_t>(std::llround(share * static_cast<double>(steps)));
  };
  // k-means needs latents, so at least one step gathers them.
  const bool gathers = options.start == "kmeans";
  warmup_steps_ = std::max<int64_t>(part(options.warmup), gathers ? 1 : 0);
  last_revival_ = part(options.revive_until);
  recent_RC_ = at::empty({0, codebook_VC_.size(1)}, codebook_VC_.scalar_type());
  Start(codebook_VC_.detach().clone());
}

// Counts begin at one latent a code, so that a row keeps its place until latents come to it; uses
// begin at 0: with a higher start no code would look dead for many steps.
void Codebook::Start(const at::Tensor& codebook_VC) {
  codebook_VC_.detach().copy_(codebook_VC);
  count_V_ = at::ones({codebook_VC.size(0)}, codebook_VC.scalar_type());
  sum_VC_ = codebook_VC.clone();
  use_V_ = at::zeros_like(count_V_);
}

std::vector<std::pair<std::string, at::Tensor*>> Codebook::State() {
  return {{"codebook.count", &count_V_},
          {"codebook.sum", &sum_VC_},
          {"codebook.use", &use_V_},
          {"codebook.recent", &recent_RC_}};
}

void Codebook::KeepRecent(const at::Tensor& z_RC) {
  // The newest latents only: the encoder changes fast in the warm-up, old ones lie elsewhere.
  recent_RC_ = at::cat({recent_RC_, z_RC});
  const int64_t over = recent_RC_.size(0) - options_.kmeans_latents;
  if (over > 0) recent_RC_ = recent_RC_.narrow(0, over, options_.kmeans_latents).clone();
}

int64_t Codebook::AfterStep(int64_t step, const at::Tensor& z_RC, const at::Tensor& code_R) {
  c10::NoGradGuard no_grad;
  if (IsWarmup(step)) {
    if (options_.start != "kmeans") return 0;
    KeepRecent(z_RC);
    if (step + 1 < warmup_steps_) return 0;
    LWM_REQUIRE(recent_RC_.size(0) >= codebook_VC_.size(0), "the warm-up gave ", recent_RC_.size(0),
                " latents for ", codebook_VC_.size(0),
                " codes: raise codebook.warmup, train.steps or train.batch");
    // From here on latents are quantised, with a codebook that covers them.
    Start(KMeans(recent_RC_, codebook_VC_.size(0), options_.kmeans_rounds,
                 Random(DeriveKey(seed_, kStartStream))));
    recent_RC_ = recent_RC_.narrow(0, 0, 0).clone();
    return 0;
  }
  const at::Tensor count_V = CountOf(code_R, codebook_VC_);
  use_V_.mul_(options_.use_decay).add_(count_V, 1 - options_.use_decay);
  if (options_.update == "ema") Follow(z_RC, code_R, count_V);
  const int64_t since = step + 1 - warmup_steps_;
  const bool revives =
      options_.revive_every > 0 && since % options_.revive_every == 0 && step < last_revival_;
  return revives ? Revive(step, z_RC) : 0;
}

// Each row is the running mean of the latents that chose it (van den Oord et al. 2017, appendix
// A.1). Laplace smoothing of the counts keeps rows that nobody chooses from a division by nearly 0
// and leaves the sum of counts as it is.
void Codebook::Follow(const at::Tensor& z_RC, const at::Tensor& code_R,
                      const at::Tensor& new_count_V) {
  const double keep = options_.decay;
  const at::Tensor new_sum_VC = at::zeros_like(sum_VC_).index_add_(0, code_R, z_RC);
  count_V_.mul_(keep).add_(new_count_V, 1 - keep);
  sum_VC_.mul_(keep).add_(new_sum_VC, 1 - keep);
  const double codes = static_cast<double>(count_V_.size(0));
  const double total = count_V_.sum().item<double>();
  const at::Tensor smoothed_V =
      (count_V_ + options_.smoothing).mul_(total / (total + codes * options_.smoothing));
  codebook_VC_.detach().copy_(sum_VC_ / smoothed_V.unsqueeze(1));
}

// Dead codes move to latents of this batch, drawn with a chance proportional to the squared
// distance from their code (the seeding of k-means++, Arthur & Vassilvitskii 2007): they go where
// the codebook is coarsest. Random numbers come from (seed, step): ranks agree, and a resumed run
// draws the same.
int64_t Codebook::Revive(int64_t step, const at::Tensor& z_RC) {
  const at::Tensor mean_use = use_V_.mean();
  const at::Tensor dead_V = at::nonzero(use_V_ < mean_use * options_.revive_below).squeeze(1);
  if (dead_V.numel() == 0) return 0;
  Random random(DeriveKey(DeriveKey(seed_, kRevivalStream), static_cast<uint64_t>(step)));
  std::vector<double> distance_R = ToVector(FindNearest(z_RC, codebook_VC_.detach()).distance_R);
  int64_t revived = 0;
  for (; revived < dead_V.numel(); ++revived) {
    const int64_t r = DrawOne(distance_R, random);
    if (r < 0) break;  // every latent is a code already
    const int64_t v = dead_V[revived].item<int64_t>();
    codebook_VC_.detach()[v].copy_(z_RC[r]);
    // As much weight as an average code, so that it stays until its first latents come.
    count_V_[v].copy_(mean_use);
    sum_VC_[v].copy_(z_RC[r] * mean_use);
    use_V_[v].copy_(mean_use);
  }
  return revived;
}

CodeUse MeasureUse(const at::Tensor& code_R, int64_t codes) {
  const at::Tensor count_V = at::bincount(code_R.reshape({-1}).to(at::kLong), {}, codes);
  const at::Tensor share_V =
      count_V.to(at::kDouble) / static_cast<double>(std::max<int64_t>(1, code_R.numel()));
  const at::Tensor entropy = -(share_V * at::log(share_V.clamp_min(1e-300))).sum();
  return {static_cast<double>((count_V > 0).sum().item<int64_t>()) / static_cast<double>(codes),
          std::exp(entropy.item<double>())};
}

}  // namespace lwm::vision_train
