#include "lwm/eval/image_pairs.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/data/documents.h"
#include "lwm/infer/token_batch.h"
#include "lwm/io/image_file.h"
#include "lwm/io/resample.h"
#include "lwm/vision/frames.h"

namespace lwm::eval {
namespace {

constexpr int64_t kRowsAtOnce = 64;    // of generation and scoring
constexpr int64_t kFramesAtOnce = 16;  // of the VQGAN

std::string Trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \n");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \n") + 1 - begin);
}

std::span<const int32_t> RowOf(const at::Tensor& codes_Pn, int64_t row) {
  return {codes_Pn.const_data_ptr<int32_t>() + row * codes_Pn.size(1),
          static_cast<size_t>(codes_Pn.size(1))};
}

// Calls visit(begin, end) for consecutive parts of [0, count).
void InParts(int64_t count, int64_t part, const std::function<void(int64_t, int64_t)>& visit) {
  for (int64_t begin = 0; begin < count; begin += part) visit(begin, std::min(count, begin + part));
}

infer::MultimodalSequence Beginning(const ImageModel& model) {
  infer::MultimodalSequence sequence;
  if (const auto bos = model.tokenizer.leading_bos()) sequence.Add(*bos, false);
  return sequence;
}

// The images as a PNG would show them.
at::Tensor Shown(const at::Tensor& images_PHWC) {
  return vision::TensorOfFrames(vision::FramesOfTensor(images_PHWC));
}

// Caption, then codes: the rows whose last tokens, the codes, are to be predicted.
std::vector<infer::MultimodalSequence> ImageRows(const ImageModel& model,
                                                 const std::vector<std::string>& caption_P,
                                                 const at::Tensor& codes_Pn) {
  std::vector<infer::MultimodalSequence> rows;
  for (int64_t p = 0; p < codes_Pn.size(0); ++p) {
    rows.push_back(ImagePrompt(model, caption_P[static_cast<size_t>(p)]));
    for (const int32_t code : RowOf(codes_Pn, p)) rows.back().Add(code, true);
  }
  return rows;
}

// The rows side by side, filled up behind their ends.
infer::TokenBatch ImageBatch(const std::vector<infer::MultimodalSequence>& rows,
                             const at::Tensor& codes_Pn) {
  const auto count = static_cast<int64_t>(rows.size());
  int64_t longest = 0;
  for (const infer::MultimodalSequence& row : rows) longest = std::max(longest, row.size());
  infer::TokenBatch batch;
  batch.id_BT = at::zeros({count, longest}, at::kLong);
  batch.vision_BT = at::zeros({count, longest}, at::kBool);
  batch.begin_BT = at::zeros({count, longest}, at::kInt);
  batch.target_BT = at::full({count, longest}, -100, at::kLong);
  batch.weight_BT = at::ones({count, longest}, at::kFloat);
  for (int64_t p = 0; p < count; ++p) {
    const infer::MultimodalSequence& row = rows[static_cast<size_t>(p)];
    batch.id_BT[p].slice(0, 0, row.size()).copy_(at::tensor(row.id_n, at::kLong));
    batch.vision_BT[p].slice(0, 0, row.size()).copy_(at::tensor(row.vision_n, at::kByte));
    const int64_t first = row.size() - codes_Pn.size(1) - 1;  // it predicts the first code
    batch.target_BT[p].slice(0, first, row.size() - 1).copy_(codes_Pn[p]);
  }
  batch.target_vision_BT = batch.target_BT.ge(0);
  return batch;
}

// -log p of each image's codes after caption_P[p], f32 [P,n].
at::Tensor CodeNll(const ImageModel& model, const std::vector<std::string>& caption_P,
                   const at::Tensor& codes_Pn) {
  const infer::TokenBatch batch = ImageBatch(ImageRows(model, caption_P, codes_Pn), codes_Pn);
  const model::DecoderInput input = infer::DecoderInputOf(batch, nullptr);
  model::DecoderOptions options;
  options.residual_dtype = model.decoder.dtype();
  const at::Tensor nll_BT = model::DecoderForward(model.decoder.config(), model.weights, input,
                                                  infer::DecoderTargetsOf(batch, input), options)
                                .nll_BT;
  return nll_BT.masked_select(batch.target_BT.ge(0)).view_as(codes_Pn);
}

// The next pair with another caption than pair p's; p when there is none.
int64_t OtherPair(const ImagePairs& pairs, int64_t p) {
  const int64_t count = pairs.size();
  for (int64_t step = 1; step < count; ++step) {
    const int64_t other = (p + step) % count;
    if (pairs.caption_P[static_cast<size_t>(other)] != pairs.caption_P[static_cast<size_t>(p)])
      return other;
  }
  return p;
}

double ShareOf(const std::vector<std::string>& got, const std::vector<std::string>& want) {
  int64_t equal = 0;
  for (size_t i = 0; i < want.size(); ++i) equal += got[i] == Trimmed(want[i]);
  return static_cast<double>(equal) / static_cast<double>(std::max<size_t>(want.size(), 1));
}

// Share of images whose nearest candidate has their caption.
double ShareOfRight(const at::Tensor& nearest_P, const std::vector<std::string>& caption_P,
                    const std::vector<std::string>& candidate_Q) {
  std::vector<std::string> got;
  for (int64_t p = 0; p < nearest_P.size(0); ++p)
    got.push_back(Trimmed(candidate_Q[static_cast<size_t>(nearest_P[p].item<int64_t>())]));
  return ShareOf(got, caption_P);
}

}  // namespace

ImagePairs ReadImagePairs(const std::filesystem::path& file, const std::string& caption_key,
                          const std::string& picture_key, const vision::Vqgan& vqgan,
                          int64_t frame_size) {
  const data::JsonlFile lines(file);
  ImagePairs pairs;
  std::vector<io::RgbImage> images;
  for (int64_t i = 0; i < lines.lines(); ++i) {
    if (lines.is_blank(i)) continue;
    const Json object = lines.Parse(i);
    pairs.caption_P.push_back(JsonGet<std::string>(object, caption_key, lines.where(i)));
    const auto image = JsonGet<std::string>(object, picture_key, lines.where(i));
    images.push_back(io::ResizeAndCrop(io::ReadImage(file.parent_path() / image), frame_size));
  }
  LWM_REQUIRE(pairs.size() >= 2, file.string(), " has ", CountOf(pairs.size(), "image"),
              " with a caption, want at least 2");
  pairs.images_PHWC = vision::TensorOfFrames(images);
  std::vector<at::Tensor> codes;
  InParts(pairs.size(), kFramesAtOnce, [&](int64_t begin, int64_t end) {
    codes.push_back(vqgan.Encode(pairs.images_PHWC.slice(0, begin, end)).flatten(1));
  });
  pairs.codes_Pn = at::cat(codes).contiguous();
  return pairs;
}

ImagePairs SomePairs(const ImagePairs& pairs, int64_t count) {
  const int64_t all = pairs.size();
  if (count == 0 || count >= all) return pairs;
  ImagePairs some;
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < count; ++i) {
    chosen.push_back(i * all / count);
    some.caption_P.push_back(pairs.caption_P[static_cast<size_t>(chosen.back())]);
  }
  const at::Tensor index = at::tensor(chosen, at::kLong);
  some.images_PHWC = pairs.images_PHWC.index_select(0, index);
  some.codes_Pn = pairs.codes_Pn.index_select(0, index);
  return some;
}

infer::MultimodalSequence ImagePrompt(const ImageModel& model, const std::string& caption) {
  infer::MultimodalSequence sequence = Beginning(model);
  sequence.AddText(model.tokenizer.Encode(caption));
  infer::AddOpenVideo(model.layout, {}, sequence);
  return sequence;
}

infer::MultimodalSequence CaptionPrompt(const ImageModel& model, std::span<const int32_t> codes) {
  infer::MultimodalSequence sequence = Beginning(model);
  infer::AddVideo(model.layout, codes, sequence);
  return sequence;
}

at::Tensor ImagesOf(const ImageModel& model, const std::vector<std::string>& caption_P,
                    const infer::FrameOptions& options) {
  const uint64_t seed = options.seeds.empty() ? 42 : options.seeds.front();
  std::vector<at::Tensor> codes;
  InParts(static_cast<int64_t>(caption_P.size()), kRowsAtOnce, [&](int64_t begin, int64_t end) {
    std::vector<infer::MultimodalSequence> prompts, unconditional;
    infer::FrameOptions part = options;
    part.frames = 1;
    part.seeds.clear();
    for (int64_t p = begin; p < end; ++p) {
      prompts.push_back(ImagePrompt(model, caption_P[static_cast<size_t>(p)]));
      unconditional.push_back(ImagePrompt(model, ""));
      // By the caption's number, not its place in the part: parts of another size draw the same.
      part.seeds.push_back(DeriveKey(seed, static_cast<uint64_t>(p)));
    }
    codes.push_back(infer::GenerateFrames(model.decoder, model.layout, prompts, unconditional, part)
                        .select(1, 0));
  });
  return at::cat(codes).contiguous();
}

std::vector<std::string> CaptionsOf(const ImageModel& model, const at::Tensor& codes_Pn,
                                    int64_t max_tokens) {
  std::vector<std::string> captions;
  infer::MixedOptions options;
  options.max_new_tokens = max_tokens;
  options.text.temperature = options.vision.temperature = 0;
  options.vocabulary = model.tokenizer.vocab_size();
  options.max_frames = 1;
  InParts(codes_Pn.size(0), kRowsAtOnce, [&](int64_t begin, int64_t end) {
    std::vector<infer::MultimodalSequence> prompts;
    for (int64_t p = begin; p < end; ++p)
      prompts.push_back(CaptionPrompt(model, RowOf(codes_Pn, p)));
    for (const infer::MultimodalSequence& added :
         infer::GenerateMixed(model.decoder, model.layout, prompts, options)) {
      std::vector<int32_t> text;
      for (size_t i = 0; i < added.id_n.size(); ++i)
        if (added.vision_n[i] == 0) text.push_back(static_cast<int32_t>(added.id_n[i]));
      captions.push_back(Trimmed(model.tokenizer.Decode(text)));
    }
  });
  return captions;
}

CodeLoss MeasureCodeLoss(const ImageModel& model, const ImagePairs& pairs) {
  CodeLoss loss;
  const auto count = static_cast<double>(pairs.codes_Pn.numel());
  for (const bool right : {true, false}) {
    double nll = 0;
    InParts(pairs.size(), kRowsAtOnce, [&](int64_t begin, int64_t end) {
      std::vector<std::string> captions;
      for (int64_t p = begin; p < end; ++p)
        captions.push_back(pairs.caption_P[static_cast<size_t>(right ? p : OtherPair(pairs, p))]);
      nll += CodeNll(model, captions, pairs.codes_Pn.slice(0, begin, end)).sum().item<double>();
    });
    (right ? loss.right : loss.wrong) = nll / count;
  }
  return loss;
}

at::Tensor NearestImages(const at::Tensor& images_PHWC, const at::Tensor& candidates_QHWC) {
  // Rounded to bytes first: differences that no viewer shows must not decide.
  const at::Tensor images_PN = Shown(images_PHWC).flatten(1);
  const at::Tensor candidates_QN = Shown(candidates_QHWC).flatten(1);
  // |x|^2 is the same for all candidates of an image.
  const at::Tensor distance_PQ =
      candidates_QN.square().sum(1).unsqueeze(0) - 2 * at::mm(images_PN, candidates_QN.t());
  return distance_PQ.argmin(1);
}

at::Tensor DecodeFrames(const vision::Vqgan& vqgan, const at::Tensor& codes_Pn) {
  const int64_t side = std::llround(std::sqrt(static_cast<double>(codes_Pn.size(1))));
  LWM_CHECK(side * side == codes_Pn.size(1), "frames of ", codes_Pn.size(1), " codes");
  std::vector<at::Tensor> images;
  InParts(codes_Pn.size(0), kFramesAtOnce, [&](int64_t begin, int64_t end) {
    images.push_back(vqgan.Decode(codes_Pn.slice(0, begin, end).reshape({-1, side, side})));
  });
  return at::cat(images);
}

PairScores MeasurePairs(const ImageModel& model, const ImagePairs& pairs,
                        const PairOptions& options, const OnPairs& on_pairs) {
  const auto log = [&](const char* what, int64_t count) {
    if (on_pairs) on_pairs(what, count);
  };
  PairScores scores;
  const ImagePairs described = SomePairs(pairs, options.captions);
  const ImagePairs drawn = SomePairs(pairs, options.images);
  scores.captions = described.size();
  scores.images = drawn.size();
  scores.code_loss = MeasureCodeLoss(model, described);
  log("codes scored", scores.captions);
  scores.captions_exact = ShareOf(CaptionsOf(model, described.codes_Pn), described.caption_P);
  log("images described", scores.captions);

  scores.drawn_codes_Dn = ImagesOf(model, drawn.caption_P, options.drawing);
  log("captions drawn", scores.images);
  scores.codes_equal =
      scores.drawn_codes_Dn.eq(drawn.codes_Pn).to(at::kDouble).mean().item<double>();
  const at::Tensor images = DecodeFrames(model.vqgan, scores.drawn_codes_Dn);
  const auto share = [&](const at::Tensor& of, const ImagePairs& candidates) {
    return ShareOfRight(NearestImages(of, candidates.images_PHWC), drawn.caption_P,
                        candidates.caption_P);
  };
  scores.nearest = share(images, pairs);
  scores.nearest_of_drawn = share(images, drawn);
  scores.nearest_ceiling = share(DecodeFrames(model.vqgan, drawn.codes_Pn), pairs);
  scores.read_back = ShareOf(CaptionsOf(model, scores.drawn_codes_Dn), drawn.caption_P);
  log("images read back", scores.images);
  return scores;
}

Json ToJson(const PairScores& scores) {
  return {{"pairs_described", scores.captions},
          {"code_nats_right_caption", scores.code_loss.right},
          {"code_nats_wrong_caption", scores.code_loss.wrong},
          {"captions_exact", scores.captions_exact},
          {"captions_drawn", scores.images},
          {"codes_equal", scores.codes_equal},
          {"nearest_right", scores.nearest},
          {"nearest_right_of_drawn", scores.nearest_of_drawn},
          {"nearest_right_ceiling", scores.nearest_ceiling},
          {"read_back_exact", scores.read_back}};
}

}  // namespace lwm::eval
