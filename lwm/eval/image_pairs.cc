#include "lwm/eval/image_pairs.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/no_target.h"
#include "lwm/data/documents.h"
#include "lwm/data/prompt.h"
#include "lwm/infer/token_batch.h"
#include "lwm/io/image_file.h"
#include "lwm/io/resample.h"
#include "lwm/vision/frame_batches.h"
#include "lwm/vision/frames.h"

namespace lwm::eval {
namespace {

constexpr int64_t kRowsAtOnce = 64;  // of generation and scoring

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

// The images as a PNG would show them.
at::Tensor Shown(const at::Tensor& images_PHWC) {
  return vision::TensorOfFrames(vision::FramesOfTensor(images_PHWC));
}

// Caption, then codes: the rows whose last tokens, the codes, are to be predicted.
std::vector<data::MultimodalSequence> ImageRows(const infer::Engine& engine,
                                                const std::vector<std::string>& caption_P,
                                                const at::Tensor& codes_Pn) {
  std::vector<data::MultimodalSequence> rows;
  for (int64_t p = 0; p < codes_Pn.size(0); ++p) {
    rows.push_back(
        data::FramePrompt(engine.tokenizer(), engine.layout(), caption_P[static_cast<size_t>(p)]));
    for (const int32_t code : RowOf(codes_Pn, p)) rows.back().Add(code, true);
  }
  return rows;
}

// The rows side by side, filled up behind their ends.
infer::TokenBatch ImageBatch(const std::vector<data::MultimodalSequence>& rows,
                             const at::Tensor& codes_Pn) {
  const auto count = static_cast<int64_t>(rows.size());
  int64_t longest = 0;
  for (const data::MultimodalSequence& row : rows) longest = std::max(longest, row.size());
  infer::TokenBatch batch;
  batch.id_BT = at::zeros({count, longest}, at::kLong);
  batch.vision_BT = at::zeros({count, longest}, at::kBool);
  batch.begin_BT = at::zeros({count, longest}, at::kInt);
  batch.target_BT = at::full({count, longest}, kNoTarget, at::kLong);
  batch.weight_BT = at::ones({count, longest}, at::kFloat);
  for (int64_t p = 0; p < count; ++p) {
    const data::MultimodalSequence& row = rows[static_cast<size_t>(p)];
    batch.id_BT[p].slice(0, 0, row.size()).copy_(at::tensor(row.id_n, at::kLong));
    batch.vision_BT[p].slice(0, 0, row.size()).copy_(at::tensor(row.vision_n, at::kByte));
    const int64_t first = row.size() - codes_Pn.size(1) - 1;  // it predicts the first code
    batch.target_BT[p].slice(0, first, row.size() - 1).copy_(codes_Pn[p]);
  }
  batch.target_vision_BT = batch.target_BT.ge(0);
  return batch;
}

// -log p of each image's codes after caption_P[p], f32 [P,n].
at::Tensor CodeNll(const infer::Engine& engine, const std::vector<std::string>& caption_P,
                   const at::Tensor& codes_Pn) {
  const infer::TokenBatch batch = ImageBatch(ImageRows(engine, caption_P, codes_Pn), codes_Pn);
  const model::DecoderInput input = infer::DecoderInputOf(batch, nullptr);
  model::DecoderOptions options;
  options.residual_dtype = engine.decoder().dtype();
  const at::Tensor nll_BT = model::DecoderForward(engine.config(), engine.weights(), input,
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
  pairs.codes_Pn = vision::EncodeInBatches(vqgan, pairs.images_PHWC).flatten(1).contiguous();
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

at::Tensor ImagesOf(const infer::Engine& engine, const std::vector<std::string>& caption_P,
                    const infer::FrameOptions& options) {
  const uint64_t seed = options.seeds.empty() ? 42 : options.seeds.front();
  std::vector<at::Tensor> codes;
  InParts(static_cast<int64_t>(caption_P.size()), kRowsAtOnce, [&](int64_t begin, int64_t end) {
    infer::FrameOptions part = options;
    part.frames = 1;
    part.seeds.clear();
    // By the caption's number, not its place in the part: parts of another size draw the same.
    for (int64_t p = begin; p < end; ++p)
      part.seeds.push_back(DeriveKey(seed, static_cast<uint64_t>(p)));
    codes.push_back(
        engine.Draw({caption_P.begin() + begin, caption_P.begin() + end}, {}, part).select(1, 0));
  });
  return at::cat(codes).contiguous();
}

std::vector<std::string> CaptionsOf(const infer::Engine& engine, const at::Tensor& codes_Pn,
                                    int64_t max_tokens) {
  std::vector<std::string> captions;
  InParts(codes_Pn.size(0), kRowsAtOnce, [&](int64_t begin, int64_t end) {
    std::vector<infer::GenerateRequest> requests;
    for (int64_t p = begin; p < end; ++p) {
      infer::GenerateRequest& request = requests.emplace_back();
      request.prompt = data::CaptionPrompt(engine.tokenizer(), engine.layout(), RowOf(codes_Pn, p));
      request.max_new_tokens = max_tokens;
      request.text.temperature = request.vision.temperature = 0;
      request.video.max_frames = 1;
    }
    for (const infer::GeneratedSequence& sequence : engine.Generate(std::move(requests)))
      captions.push_back(Trimmed(engine.tokenizer().Decode(sequence.Text())));
  });
  return captions;
}

CodeLoss MeasureCodeLoss(const infer::Engine& engine, const ImagePairs& pairs) {
  CodeLoss loss;
  const auto count = static_cast<double>(pairs.codes_Pn.numel());
  for (const bool right : {true, false}) {
    double nll = 0;
    InParts(pairs.size(), kRowsAtOnce, [&](int64_t begin, int64_t end) {
      std::vector<std::string> captions;
      for (int64_t p = begin; p < end; ++p)
        captions.push_back(pairs.caption_P[static_cast<size_t>(right ? p : OtherPair(pairs, p))]);
      nll += CodeNll(engine, captions, pairs.codes_Pn.slice(0, begin, end)).sum().item<double>();
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

PairScores MeasurePairs(const infer::Engine& engine, const ImagePairs& pairs,
                        const PairOptions& options, const OnPairs& on_pairs) {
  const auto log = [&](const char* what, int64_t count) {
    if (on_pairs) on_pairs(what, count);
  };
  PairScores scores;
  const ImagePairs described = SomePairs(pairs, options.captions);
  const ImagePairs drawn = SomePairs(pairs, options.images);
  scores.captions = described.size();
  scores.images = drawn.size();
  scores.code_loss = MeasureCodeLoss(engine, described);
  log("codes scored", scores.captions);
  scores.captions_exact = ShareOf(CaptionsOf(engine, described.codes_Pn), described.caption_P);
  log("images described", scores.captions);

  scores.drawn_codes_Dn = ImagesOf(engine, drawn.caption_P, options.drawing);
  log("captions drawn", scores.images);
  scores.codes_equal =
      scores.drawn_codes_Dn.eq(drawn.codes_Pn).to(at::kDouble).mean().item<double>();
  const at::Tensor images = vision::DecodeFrames(engine.vqgan(), scores.drawn_codes_Dn);
  const auto share = [&](const at::Tensor& of, const ImagePairs& candidates) {
    return ShareOfRight(NearestImages(of, candidates.images_PHWC), drawn.caption_P,
                        candidates.caption_P);
  };
  scores.nearest = share(images, pairs);
  scores.nearest_of_drawn = share(images, drawn);
  scores.nearest_ceiling = share(vision::DecodeFrames(engine.vqgan(), drawn.codes_Pn), pairs);
  scores.read_back = ShareOf(CaptionsOf(engine, scores.drawn_codes_Dn), drawn.caption_P);
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
