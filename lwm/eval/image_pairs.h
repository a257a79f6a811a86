#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/infer/engine.h"
#include "lwm/vision/vqgan.h"

namespace lwm::eval {

// Images with captions, P of them.
struct ImagePairs {
  std::vector<std::string> caption_P;
  at::Tensor images_PHWC;  // f32 in [-1, 1]
  at::Tensor codes_Pn;     // i32, encoded by the VQGAN

  int64_t size() const { return static_cast<int64_t>(caption_P.size()); }
};

// The lines of a JSONL file, each with a text under caption_key and the path of an image (relative
// to the file's folder) under picture_key, prepared at frame_size x frame_size pixels. Throws
// Error(kCorruptData) naming file, line and field, Error(kNotFound) for an image,
// Error(kInvalidArgument) when there are fewer than two lines.
ImagePairs ReadImagePairs(const std::filesystem::path& file, const std::string& caption_key,
                          const std::string& picture_key, const vision::Vqgan& vqgan,
                          int64_t frame_size);

// At most `count` of them, spread evenly; 0 = all.
ImagePairs SomePairs(const ImagePairs& pairs, int64_t count);

// Codes i32 [P,n] for captions, guided when options.scale is not 1; one frame each.
at::Tensor ImagesOf(const infer::Engine& engine, const std::vector<std::string>& caption_P,
                    const infer::FrameOptions& options);

// The likeliest caption of each image, at most max_tokens tokens, without spaces at its ends.
std::vector<std::string> CaptionsOf(const infer::Engine& engine, const at::Tensor& codes_Pn,
                                    int64_t max_tokens = 48);

// Mean -log p of an image's codes after its own caption, and after that of the next pair (the next
// that is not the same). Their difference shows how much the text says about the image.
struct CodeLoss {
  double right = 0, wrong = 0;  // nats per code
};
CodeLoss MeasureCodeLoss(const infer::Engine& engine, const ImagePairs& pairs);

// Row of the candidate that is nearest in pixels (least sum of squares), i64 [P].
//   images_PHWC, candidates_QHWC  in  f32 of one size; compared as a PNG shows them, in [-1, 1]
at::Tensor NearestImages(const at::Tensor& images_PHWC, const at::Tensor& candidates_QHWC);

struct PairOptions {
  int64_t images = 48;          // captions that are drawn, spread evenly over the pairs; 0 = all
  int64_t captions = 0;         // images that are described and whose codes are scored; 0 = all
  infer::FrameOptions drawing;  // of the images
};

// Shares of pairs, 0 to 1.
struct PairScores {
  int64_t images = 0, captions = 0;  // measured
  CodeLoss code_loss;
  double captions_exact = 0;  // images whose likeliest caption is theirs to the letter
  // Of the captions that were drawn:
  double codes_equal = 0;       // codes that are the stored ones
  double nearest = 0;           // the nearest of all pairs' images is their own
  double nearest_ceiling = 0;   // the same for the stored codes, decoded
  double nearest_of_drawn = 0;  // the nearest of the images of the captions drawn is their own
  double read_back = 0;         // the likeliest caption of the drawn image's codes is theirs
  at::Tensor drawn_codes_Dn;    // i32
};
Json ToJson(const PairScores& scores);

// Called after each stage with its name ("captions drawn") and the number of items.
using OnPairs = std::function<void(const std::string& what, int64_t count)>;

PairScores MeasurePairs(const infer::Engine& engine, const ImagePairs& pairs,
                        const PairOptions& options, const OnPairs& on_pairs = {});

}  // namespace lwm::eval
