#include "lwm/infer/batch_generator.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "lwm/base/error.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/infer/token_batch.h"

namespace lwm::infer {
namespace {

int64_t LongestOf(const std::vector<MultimodalSequence>& prompts) {
  int64_t longest = 0;
  for (const MultimodalSequence& prompt : prompts) {
    LWM_REQUIRE(prompt.size() > 0, "the prompt has no tokens");
    longest = std::max(longest, prompt.size());
  }
  return longest;
}

// Prompts side by side, padded on the left, and the cache that holds them. On the left, since then
// the last tokens of all rows are in one column, and one pass appends a token to each.
class PaddedRows {
 public:
  // Room for new_tokens more in each row.
  PaddedRows(const DecodeModel& model, const std::vector<MultimodalSequence>& prompts,
             int64_t new_tokens)
      : model_(model), prompts_(prompts), longest_(LongestOf(prompts)) {
    Check(new_tokens);
    cache_.emplace(model.config(), rows(), longest_ + new_tokens, model.dtype());
  }

  int64_t rows() const { return static_cast<int64_t>(prompts_.size()); }

  // Last hidden states of the prompts, [B,D].
  at::Tensor ReadPrompts() {
    const at::Tensor id_BT = at::zeros({rows(), longest_}, at::kLong);
    const at::Tensor vision_BT = at::zeros({rows(), longest_}, at::kBool);
    const at::Tensor begin_B = at::zeros({rows()}, at::kInt);
    for (int64_t b = 0; b < rows(); ++b) {
      const MultimodalSequence& prompt = prompts_[static_cast<size_t>(b)];
      const int64_t begin = longest_ - prompt.size();
      begin_B.mutable_data_ptr<int32_t>()[b] = static_cast<int32_t>(begin);
      std::copy(prompt.id_n.begin(), prompt.id_n.end(),
                id_BT.mutable_data_ptr<int64_t>() + b * longest_ + begin);
      std::copy(prompt.vision_n.begin(), prompt.vision_n.end(),
                vision_BT.mutable_data_ptr<bool>() + b * longest_ + begin);
    }
    // Rows of one length need no mask.
    if (begin_B.any().item<bool>()) cache_->SetBegin(begin_B);
    return model_.ReadHidden({id_BT, AnyOf(vision_BT)}, *cache_);
  }

  // Appends one token to each row.
  at::Tensor Read(const std::vector<int64_t>& id_B, const std::vector<uint8_t>& vision_B) {
    const at::Tensor id_B1 = at::tensor(id_B, at::kLong).unsqueeze(1);
    const at::Tensor vision_B1 = at::tensor(vision_B, at::kByte).to(at::kBool).unsqueeze(1);
    return model_.ReadHidden({id_B1, AnyOf(vision_B1)}, *cache_);
  }

 private:
  static at::Tensor AnyOf(const at::Tensor& vision_BT) {
    return vision_BT.any().item<bool>() ? vision_BT : at::Tensor();
  }

  void Check(int64_t new_tokens) const {
    const config::ModelConfig& config = model_.config();
    // The last new token is never read.
    LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, longest_ + new_tokens - 1 <= ContextLimit(config),
                   "prompt and new tokens are ", longest_ + new_tokens,
                   ", the model's context (max_position_embeddings) is ", ContextLimit(config),
                   "; shorten the prompt or ask for fewer");
    // Padding is written to the cache like any token, so every row counts as the longest.
    const auto needed = static_cast<double>(rows()) * static_cast<double>(longest_ + new_tokens) *
                        static_cast<double>(KvBytesPerToken(config, model_.dtype()));
    const auto available = static_cast<double>(AvailableMemoryBytes());
    LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, needed <= available, "keys and values of ",
                   rows(), " rows of ", longest_ + new_tokens, " tokens need ", FormatBytes(needed),
                   " of memory, ", FormatBytes(available),
                   " are left; ask for fewer rows or tokens");
  }

  const DecodeModel& model_;
  const std::vector<MultimodalSequence>& prompts_;
  int64_t longest_;
  std::optional<KvCache> cache_;
};

std::vector<uint64_t> SeedsOf(const std::vector<uint64_t>& seeds, size_t rows) {
  LWM_REQUIRE(seeds.size() <= 1 || seeds.size() == rows, seeds.size(), " seeds for ", rows,
              " prompts: give one, or one for each");
  if (seeds.size() == rows && rows > 1) return seeds;
  const uint64_t seed = seeds.empty() ? 42 : seeds.front();
  // By row, so that row b draws the same in a batch of any size; row 0 as a batch of one does.
  std::vector<uint64_t> derived = {seed};
  for (size_t b = 1; b < rows; ++b) derived.push_back(DeriveKey(seed, b));
  return derived;
}

std::span<const float> RowOf(const at::Tensor& logits_BV, int64_t row) {
  const auto columns = static_cast<size_t>(logits_BV.size(1));
  return {logits_BV.const_data_ptr<float>() + static_cast<size_t>(row) * columns, columns};
}

// Draws the codes of new frames, one of every row at a time.
class FrameDrawer {
 public:
  FrameDrawer(const DecodeModel& model, const FrameLayout& layout, size_t rows,
              const FrameOptions& options)
      : model_(model), layout_(layout), options_(options) {
    for (const uint64_t seed : SeedsOf(options.seeds, rows))
      samplers_.emplace_back(options.sampling, seed);
  }

  //   x_RD  in  hidden states of B rows, or of B conditional and B unconditional ones
  std::vector<int64_t> Draw(const at::Tensor& x_RD) {
    const auto rows = static_cast<int64_t>(samplers_.size());
    // Delimiters are cut off: inside a frame only codes may come.
    at::Tensor logits_BV = model_.Logits(x_RD, Head::kVision).narrow(1, 0, layout_.codes);
    if (logits_BV.size(0) > rows) {
      // Classifier-free guidance (Ho & Salimans 2022), on logits.
      const at::Tensor unconditional_BV = logits_BV.slice(0, rows);
      logits_BV =
          unconditional_BV + options_.scale * (logits_BV.slice(0, 0, rows) - unconditional_BV);
    }
    logits_BV = logits_BV.contiguous();
    std::vector<int64_t> code_B;
    for (int64_t b = 0; b < rows; ++b)
      code_B.push_back(samplers_[static_cast<size_t>(b)].Sample(RowOf(logits_BV, b)));
    return code_B;
  }

 private:
  const DecodeModel& model_;
  const FrameLayout& layout_;
  const FrameOptions& options_;
  std::vector<Sampler> samplers_;
};

std::vector<MultimodalSequence> Joined(const std::vector<MultimodalSequence>& first,
                                       const std::vector<MultimodalSequence>& second) {
  std::vector<MultimodalSequence> all = first;
  all.insert(all.end(), second.begin(), second.end());
  return all;
}

void CheckFrameRequest(const FrameLayout& layout, const std::vector<MultimodalSequence>& prompts,
                       const std::vector<MultimodalSequence>& unconditional,
                       const FrameOptions& options) {
  options.sampling.Validate();
  LWM_REQUIRE(!prompts.empty(), "no prompts");
  LWM_REQUIRE(options.frames >= 1, "frames is ", options.frames, ", want at least 1");
  LWM_REQUIRE(std::isfinite(options.scale), "scale is ", options.scale, ", want a number");
  LWM_REQUIRE(options.scale == 1 || unconditional.size() == prompts.size(),
              "guidance wants an unconditional sequence for each of ", prompts.size(),
              " prompts, got ", unconditional.size());
  for (const MultimodalSequence& prompt : Joined(prompts, unconditional)) {
    FrameConstraint state(layout, 0);
    for (int64_t i = 0; i < prompt.size(); ++i)
      state.Read(prompt.id_n[static_cast<size_t>(i)], prompt.vision_n[static_cast<size_t>(i)] != 0);
    LWM_REQUIRE(state.at_frame_begin(),
                "the prompt of a frame must end with <vision> or a whole frame");
  }
}

// One sequence that grows.
struct GrowingRow {
  FrameConstraint state;
  Sampler text, vision;
  MultimodalSequence added;
  bool done = false;
};

// Draws the next token of every row that is not done.
void DrawNext(const DecodeModel& model, const at::Tensor& x_BD, int64_t vocabulary,
              std::vector<GrowingRow>& rows) {
  // Rows may be in text or in a frame: each head multiplies only the rows that draw from it.
  for (const Head head : {Head::kText, Head::kVision}) {
    std::vector<int64_t> chosen;
    for (size_t b = 0; b < rows.size(); ++b)
      if (!rows[b].done && rows[b].state.head() == head) chosen.push_back(static_cast<int64_t>(b));
    if (chosen.empty()) continue;
    const at::Tensor logits_RV =
        model.Logits(x_BD.index_select(0, at::tensor(chosen, at::kLong)), head);
    for (size_t r = 0; r < chosen.size(); ++r) {
      GrowingRow& row = rows[static_cast<size_t>(chosen[r])];
      const auto [begin, end] = row.state.Allowed(vocabulary);
      Sampler& sampler = head == Head::kText ? row.text : row.vision;
      const int64_t id = begin + sampler.Sample(RowOf(logits_RV, static_cast<int64_t>(r))
                                                    .subspan(static_cast<size_t>(begin),
                                                             static_cast<size_t>(end - begin)));
      if (head == Head::kText) sampler.See(id);
      row.added.Add(id, head == Head::kVision);
      row.state.Read(id, head == Head::kVision);
    }
  }
}

std::vector<GrowingRow> MakeRows(const FrameLayout& layout,
                                 const std::vector<MultimodalSequence>& prompts,
                                 const MixedOptions& options) {
  std::vector<GrowingRow> rows;
  const auto seeds = SeedsOf(options.seeds, prompts.size());
  for (size_t b = 0; b < prompts.size(); ++b) {
    // Text and vision draw from streams of their own.
    rows.push_back({FrameConstraint(layout, options.max_frames),
                    Sampler(options.text, seeds[b]),
                    Sampler(options.vision, DeriveKey(seeds[b], 1)),
                    {}});
    for (size_t i = 0; i < prompts[b].id_n.size(); ++i) {
      const bool is_vision = prompts[b].vision_n[i] != 0;
      rows.back().state.Read(prompts[b].id_n[i], is_vision);
      if (!is_vision) rows.back().text.See(prompts[b].id_n[i]);
    }
  }
  return rows;
}

}  // namespace

at::Tensor GenerateFrames(const DecodeModel& model, const FrameLayout& layout,
                          const std::vector<MultimodalSequence>& prompts,
                          const std::vector<MultimodalSequence>& unconditional,
                          const FrameOptions& options, const OnCodes& on_codes) {
  CheckFrameRequest(layout, prompts, unconditional, options);
  const bool guided = options.scale != 1;
  const std::vector<MultimodalSequence> all = guided ? Joined(prompts, unconditional) : prompts;
  const int64_t per_frame = layout.tokens_per_frame;
  PaddedRows rows(model, all, options.frames * (per_frame + 1) - 1);
  FrameDrawer drawer(model, layout, prompts.size(), options);

  const auto count = static_cast<int64_t>(prompts.size());
  const at::Tensor codes_BFn = at::empty({count, options.frames, per_frame}, at::kInt);
  auto codes = codes_BFn.accessor<int32_t, 3>();
  const std::vector<uint8_t> is_vision(all.size(), 1);
  at::Tensor x_RD = rows.ReadPrompts();
  for (int64_t f = 0; f < options.frames; ++f) {
    // The delimiter is put there, not drawn: every frame has its full number of codes.
    if (f > 0) x_RD = rows.Read(std::vector<int64_t>(all.size(), layout.eof()), is_vision);
    for (int64_t i = 0; i < per_frame; ++i) {
      std::vector<int64_t> id_R = drawer.Draw(x_RD);
      for (int64_t b = 0; b < count; ++b)
        codes[b][f][i] = static_cast<int32_t>(id_R[static_cast<size_t>(b)]);
      if (on_codes) on_codes(f * per_frame + i + 1, options.frames * per_frame);
      if (f + 1 == options.frames && i + 1 == per_frame) break;
      id_R.resize(all.size());
      // The unconditional rows read the codes that were drawn for their prompts.
      std::copy_n(id_R.begin(), guided ? count : 0, id_R.end() - count);
      x_RD = rows.Read(id_R, is_vision);
    }
  }
  return codes_BFn;
}

std::vector<MultimodalSequence> GenerateMixed(const DecodeModel& model, const FrameLayout& layout,
                                              const std::vector<MultimodalSequence>& prompts,
                                              const MixedOptions& options) {
  options.text.Validate();
  options.vision.Validate();
  LWM_REQUIRE(!prompts.empty(), "no prompts");
  LWM_REQUIRE(options.max_new_tokens >= 1, "max-new-tokens is ", options.max_new_tokens,
              ", want >= 1");
  const int64_t all = model.config().vocab_size;
  const int64_t vocabulary = options.vocabulary > 0 ? std::min(all, options.vocabulary) : all;
  std::vector<GrowingRow> rows = MakeRows(layout, prompts, options);
  // The last new token is never read, so the context may be full when it is drawn.
  const int64_t room = ContextLimit(model.config()) - LongestOf(prompts) + 1;
  const int64_t wanted = std::clamp<int64_t>(room, 1, options.max_new_tokens);
  PaddedRows padded(model, prompts, wanted);

  at::Tensor x_BD = padded.ReadPrompts();
  for (int64_t step = 0; step < wanted; ++step) {
    if (step > 0) {
      // A row that is done reads its last token again: all rows of a cache grow together, and its
      // results are ignored.
      std::vector<int64_t> id_B;
      std::vector<uint8_t> vision_B;
      for (const GrowingRow& row : rows) {
        id_B.push_back(row.added.id_n.back());
        vision_B.push_back(row.added.vision_n.back());
      }
      x_BD = padded.Read(id_B, vision_B);
    }
    DrawNext(model, x_BD, vocabulary, rows);
    for (GrowingRow& row : rows)
      row.done = row.done || (!options.ignore_eos && row.added.vision_n.back() == 0 &&
                              model.config().EndsText(row.added.id_n.back()));
    if (std::all_of(rows.begin(), rows.end(), [](const GrowingRow& row) { return row.done; }))
      break;
  }
  std::vector<MultimodalSequence> added;
  for (GrowingRow& row : rows) added.push_back(std::move(row.added));
  return added;
}

}  // namespace lwm::infer
