#include "lwm/infer/generation.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/process.h"
#include "lwm/infer/token_batch.h"

namespace lwm::infer {
namespace {

using Stop = GeneratedSequence::Stop;

void CheckRequest(const GenerateRequest& request, const Vocabularies& vocabularies,
                  int64_t context) {
  request.text.Validate();
  request.vision.Validate();
  LWM_REQUIRE(request.max_new_tokens >= 0, "max-new-tokens is ", request.max_new_tokens,
              ", want >= 0");
  LWM_REQUIRE(std::isfinite(request.scale), "scale is ", request.scale, ", want a number");
  LWM_CHECK(request.scale == 1 || vocabularies.layout, "guidance wants a layout of frames");
  for (const data::MultimodalSequence* prompt : {&request.prompt, &request.unconditional}) {
    if (prompt == &request.unconditional && request.scale == 1) continue;
    LWM_REQUIRE(prompt->size() > 0, "the prompt has no tokens");
    LWM_REQUIRE_AS(ErrorCode::kResourceExhausted,
                   !request.must_fit || prompt->size() + request.max_new_tokens - 1 <= context,
                   "prompt and new tokens are ", prompt->size() + request.max_new_tokens,
                   ", the model's context (max_position_embeddings) is ", context,
                   "; shorten the prompt or ask for fewer");
    LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, prompt->size() <= context, "the prompt has ",
                   CountOf(prompt->size(), "token"),
                   ", the model's context (max_position_embeddings) is ", context,
                   "; shorten the prompt");
  }
}

// New tokens that there is room for. The last one is never read, so the context may be full when it
// is drawn.
int64_t Room(const GenerateRequest& request, int64_t context) {
  const int64_t guided = request.scale == 1 ? 0 : request.unconditional.size();
  return context - std::max(request.prompt.size(), guided) + 1;
}

std::span<const float> RowOf(const at::Tensor& logits_BV, int64_t row) {
  const auto columns = static_cast<size_t>(logits_BV.size(1));
  return {logits_BV.const_data_ptr<float>() + static_cast<size_t>(row) * columns, columns};
}

// The rows of x_RD in that order; itself when these are all of them in order.
at::Tensor RowsOf(const at::Tensor& x_RD, const std::vector<int64_t>& rows) {
  bool all = static_cast<int64_t>(rows.size()) == x_RD.size(0);
  for (size_t i = 0; i < rows.size(); ++i) all = all && rows[i] == static_cast<int64_t>(i);
  return all ? x_RD : x_RD.index_select(0, at::tensor(rows, at::kLong));
}

}  // namespace

std::vector<int32_t> GeneratedSequence::Text() const {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < added.id_n.size(); ++i)
    if (added.vision_n[i] == 0) ids.push_back(static_cast<int32_t>(added.id_n[i]));
  return ids;
}

struct Generation::Drawing {
  FrameConstraint constraint;
  Sampler text, vision;
  int64_t wanted;  // new tokens
};

// Sequences side by side, padded on the left, and the cache that holds them. On the left, since
// then the last tokens of all rows are in one column, and one pass appends a token to each.
class Generation::PaddedRows {
 public:
  // Room for new_tokens more in each row. The sequences must outlive it.
  PaddedRows(const DecodeModel& model, std::vector<const data::MultimodalSequence*> prompts,
             int64_t new_tokens)
      : model_(model), prompts_(std::move(prompts)) {
    for (const data::MultimodalSequence* prompt : prompts_)
      longest_ = std::max(longest_, prompt->size());
    RequireRoom(longest_ + new_tokens);
    cache_.emplace(model.config(), rows(), longest_ + new_tokens, model.dtype());
  }

  bool is_empty() const { return cache_->tokens() == 0; }

  // Last hidden states of the prompts, [R,D].
  at::Tensor ReadPrompts() {
    const at::Tensor id_RT = at::zeros({rows(), longest_}, at::kLong);
    const at::Tensor vision_RT = at::zeros({rows(), longest_}, at::kBool);
    const at::Tensor begin_R = at::zeros({rows()}, at::kInt);
    bool padded = false, vision = false;
    for (int64_t r = 0; r < rows(); ++r) {
      const data::MultimodalSequence& prompt = *prompts_[static_cast<size_t>(r)];
      const int64_t begin = longest_ - prompt.size();
      padded = padded || begin > 0;
      vision = vision || HasVision(prompt.vision_n);
      begin_R.mutable_data_ptr<int32_t>()[r] = static_cast<int32_t>(begin);
      std::copy(prompt.id_n.begin(), prompt.id_n.end(),
                id_RT.mutable_data_ptr<int64_t>() + r * longest_ + begin);
      std::copy(prompt.vision_n.begin(), prompt.vision_n.end(),
                vision_RT.mutable_data_ptr<bool>() + r * longest_ + begin);
    }
    // Rows of one length need no mask.
    if (padded) cache_->SetBegin(begin_R);
    return model_.ReadHidden({id_RT, vision ? vision_RT : at::Tensor()}, *cache_);
  }

  // Appends one token to each row.
  at::Tensor Read(const std::vector<int64_t>& id_R, const std::vector<uint8_t>& vision_R) {
    at::Tensor vision_R1;
    if (HasVision(vision_R)) vision_R1 = at::tensor(vision_R, at::kByte).to(at::kBool).unsqueeze(1);
    return model_.ReadHidden({at::tensor(id_R, at::kLong).unsqueeze(1), vision_R1}, *cache_);
  }

 private:
  int64_t rows() const { return static_cast<int64_t>(prompts_.size()); }

  static bool HasVision(const std::vector<uint8_t>& vision_n) {
    return std::find(vision_n.begin(), vision_n.end(), uint8_t{1}) != vision_n.end();
  }

  // The cache commits memory as tokens come: without this check memory would end in the middle of
  // an answer. Padding is written like any token, so every row counts as the longest.
  void RequireRoom(int64_t tokens) const {
    const bool several = rows() > 1;
    RequireMemory(static_cast<double>(rows() * KvBytesPerToken(model_.config(), model_.dtype())) *
                      static_cast<double>(tokens),
                  Cat("keys and values of ", several ? Cat(rows(), " rows of ") : "", tokens,
                      " tokens (prompt and new ones)"),
                  several ? "ask for fewer rows or tokens" : "ask for fewer tokens");
  }

  const DecodeModel& model_;
  std::vector<const data::MultimodalSequence*> prompts_;
  int64_t longest_ = 0;
  std::optional<KvCache> cache_;
};

Generation::Generation(const DecodeModel& model, std::vector<GenerateRequest> requests,
                       const Vocabularies& vocabularies)
    : model_(model), requests_(std::move(requests)) {
  LWM_REQUIRE(!requests_.empty(), "no prompts");
  const int64_t all = model.config().vocab_size, context = ContextLimit(model.config());
  text_vocabulary_ = vocabularies.text > 0 ? std::min(all, vocabularies.text) : all;
  std::vector<const data::MultimodalSequence*> rows, unconditional;
  int64_t most = 0;
  for (const GenerateRequest& request : requests_) {
    CheckRequest(request, vocabularies, context);
    const int64_t wanted = std::min(request.max_new_tokens, Room(request, context));
    most = std::max(most, wanted);
    drawings_.push_back({FrameConstraint(vocabularies.layout, request.video),
                         Sampler(request.text, request.text_seed),
                         Sampler(request.vision, request.vision_seed), wanted});
    sequences_.push_back({.added = {},
                          .stop = wanted == 0 ? Stop::kMaxNewTokens : Stop::kNotYet,
                          .prompt_tokens = request.prompt.size()});
    for (size_t i = 0; i < request.prompt.id_n.size(); ++i) {
      const bool vision = request.prompt.vision_n[i] != 0;
      drawings_.back().constraint.Read(request.prompt.id_n[i], vision);
      if (!vision) drawings_.back().text.See(request.prompt.id_n[i]);
    }
    rows.push_back(&request.prompt);
    unconditional_row_.push_back(-1);
    if (request.scale == 1) continue;
    unconditional_row_.back() = static_cast<int64_t>(requests_.size() + unconditional.size());
    unconditional.push_back(&request.unconditional);
  }
  rows.insert(rows.end(), unconditional.begin(), unconditional.end());
  if (most > 0) rows_ = std::make_unique<PaddedRows>(model, std::move(rows), most);
}

Generation::~Generation() = default;

bool Generation::Step() {
  const auto has_stopped = [](const GeneratedSequence& s) { return s.stop != Stop::kNotYet; };
  if (std::all_of(sequences_.begin(), sequences_.end(), has_stopped)) return false;
  const double start = MonotonicSeconds();
  if (rows_->is_empty()) {
    Draw(rows_->ReadPrompts());
    prefill_seconds_ = MonotonicSeconds() - start;
    return true;
  }
  // A sequence that has stopped reads its last token again: all rows of a cache grow together, and
  // its results are ignored.
  std::vector<int64_t> id_R;
  std::vector<uint8_t> vision_R;
  const auto append = [&](size_t sequence) {
    const data::MultimodalSequence& added = sequences_[sequence].added;
    const data::MultimodalSequence& last =
        added.size() > 0 ? added : requests_[sequence].prompt;  // no token was wanted of it
    id_R.push_back(last.id_n.back());
    vision_R.push_back(last.vision_n.back());
  };
  for (size_t s = 0; s < sequences_.size(); ++s) append(s);
  for (size_t s = 0; s < sequences_.size(); ++s)
    if (unconditional_row_[s] >= 0) append(s);
  Draw(rows_->Read(id_R, vision_R));
  decode_seconds_ += MonotonicSeconds() - start;
  return true;
}

void Generation::Stop(size_t sequence) {
  if (sequences_[sequence].stop == Stop::kNotYet) sequences_[sequence].stop = Stop::kAsked;
}

void Generation::Draw(const at::Tensor& x_RD) {
  // Sequences may be in text or in a frame: each head multiplies only the rows that draw from it.
  // Which do is decided before a token is drawn, which may change the head of the next.
  std::array<std::vector<int64_t>, 2> drawing;
  for (size_t s = 0; s < sequences_.size(); ++s)
    if (sequences_[s].stop == Stop::kNotYet)
      drawing[drawings_[s].constraint.head() == Head::kText ? 0 : 1].push_back(
          static_cast<int64_t>(s));
  DrawFrom(Head::kText, drawing[0], x_RD);
  DrawFrom(Head::kVision, drawing[1], x_RD);
}

void Generation::DrawFrom(Head head, const std::vector<int64_t>& drawing, const at::Tensor& x_RD) {
  // Delimiters between frames are often the only id allowed: then nothing is multiplied or drawn.
  std::vector<int64_t> choosing;
  for (const int64_t s : drawing) {
    const auto [begin, end] =
        drawings_[static_cast<size_t>(s)].constraint.Allowed(text_vocabulary_);
    end - begin > 1 ? choosing.push_back(s)
                    : Add(static_cast<size_t>(s), begin, head == Head::kVision);
  }
  if (choosing.empty()) return;
  const at::Tensor logits_SV = LogitsOf(head, choosing, x_RD);
  for (size_t i = 0; i < choosing.size(); ++i) {
    const auto s = static_cast<size_t>(choosing[i]);
    Drawing& of = drawings_[s];
    const auto [begin, end] = of.constraint.Allowed(text_vocabulary_);
    Sampler& sampler = head == Head::kText ? of.text : of.vision;
    const auto allowed = RowOf(logits_SV, static_cast<int64_t>(i))
                             .subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    Add(s, begin + sampler.Sample(allowed), head == Head::kVision);
  }
}

at::Tensor Generation::LogitsOf(Head head, const std::vector<int64_t>& drawing,
                                const at::Tensor& x_RD) const {
  std::vector<int64_t> rows = drawing, guided;
  for (size_t i = 0; i < drawing.size(); ++i) {
    const int64_t row = unconditional_row_[static_cast<size_t>(drawing[i])];
    if (row < 0) continue;
    guided.push_back(static_cast<int64_t>(i));
    rows.push_back(row);
  }
  const at::Tensor logits_RV = model_.Logits(RowsOf(x_RD, rows), head);
  const auto count = static_cast<int64_t>(drawing.size());
  for (size_t g = 0; g < guided.size(); ++g) {
    const double scale =
        requests_[static_cast<size_t>(drawing[static_cast<size_t>(guided[g])])].scale;
    at::Tensor conditional_V = logits_RV[guided[g]];
    const at::Tensor unconditional_V = logits_RV[count + static_cast<int64_t>(g)];
    conditional_V.copy_(unconditional_V + scale * (conditional_V - unconditional_V));
  }
  return logits_RV;
}

void Generation::Add(size_t sequence, int64_t id, bool vision) {
  GeneratedSequence& to = sequences_[sequence];
  Drawing& of = drawings_[sequence];
  to.added.Add(id, vision);
  of.constraint.Read(id, vision);
  if (!vision) of.text.See(id);
  const GenerateRequest& request = requests_[sequence];
  // The end-of-text token is kept like any other; the reason to stop is decided after it.
  if (!vision && !request.ignore_eos && model_.config().EndsText(id))
    to.stop = Stop::kEndOfText;
  else if (to.added.size() == of.wanted)
    to.stop = of.wanted < request.max_new_tokens ? Stop::kContextFull : Stop::kMaxNewTokens;
}

std::vector<GeneratedSequence> Generate(const DecodeModel& model,
                                        std::vector<GenerateRequest> requests,
                                        const Vocabularies& vocabularies, const OnToken& on_token) {
  Generation generation(model, std::move(requests), vocabularies);
  std::vector<int64_t> reported(generation.sequences().size());
  while (generation.Step()) {
    if (!on_token) continue;
    for (size_t s = 0; s < reported.size(); ++s) {
      const data::MultimodalSequence& added = generation.sequences()[s].added;
      if (reported[s] == added.size()) continue;
      reported[s] = added.size();
      if (!on_token(s, added.id_n.back(), added.vision_n.back() != 0)) generation.Stop(s);
    }
  }
  return generation.sequences();
}

std::vector<uint64_t> SeedsOf(const std::vector<uint64_t>& seeds, size_t count) {
  LWM_REQUIRE(seeds.size() <= 1 || seeds.size() == count, seeds.size(), " seeds for ", count,
              " prompts: give one, or one for each");
  if (seeds.size() == count && count > 1) return seeds;
  const uint64_t seed = seeds.empty() ? 42 : seeds.front();
  std::vector<uint64_t> derived = {seed};
  for (size_t s = 1; s < count; ++s) derived.push_back(DeriveKey(seed, s));
  return derived;
}

}  // namespace lwm::infer
