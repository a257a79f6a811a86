#include "lwm/eval/training_samples.h"

#include <ATen/ATen.h>

#include "lwm/checkpoint/tensor_file.h"
#include "lwm/data/prompt.h"
#include "lwm/infer/engine.h"
#include "lwm/io/image_file.h"
#include "lwm/vision/frames.h"
#include "lwm/vision/image_grid.h"

namespace lwm::eval {
std::string SampleText(const config::TrainConfig& config, const std::filesystem::path& model) {
  const infer::Engine engine(model.string(),
                             {.dtype = checkpoint::ToScalarType(config.train.dtype)});
  const auto prompt = data::EncodePrompt(engine.tokenizer(), config.train.sample_prompt);
  infer::GenerateRequest request = infer::TextRequest(prompt);
  request.max_new_tokens = config.train.sample_tokens;
  request.text = {.temperature = config.train.sample_temperature, .top_p = 0.95};
  request.text_seed = static_cast<uint64_t>(config.train.seed);
  data::StreamDecoder decoder(engine.tokenizer());
  for (const int32_t id : prompt) decoder.Push(id);  // prime the decoder with the prompt
  std::string text;
  for (const int32_t id : engine.Generate({std::move(request)})[0].Text()) text += decoder.Push(id);
  return text + decoder.Finish();
}

infer::FrameOptions ImageReport::Drawing() const {
  const config::PicturesSection& section = config_.pictures;
  infer::FrameOptions options;
  options.scale = section.scale;
  options.sampling = {.temperature = section.temperature, .top_k = section.top_k};
  options.seeds = {static_cast<uint64_t>(config_.train.seed)};
  return options;
}

Json ImageReport::operator()(const std::filesystem::path& model, const std::filesystem::path& png,
                             bool last) {
  const config::PicturesSection& section = config_.pictures;
  const infer::Engine engine(
      model.string(), {.dtype = checkpoint::ToScalarType(config_.train.dtype), .images = true});
  if (!section.prompts.empty()) {
    const at::Tensor codes_Pn = ImagesOf(engine, section.prompts, Drawing());
    io::WritePng(png, vision::ImageGrid(engine.FramesOf(codes_Pn), {.columns = section.columns}));
  }
  return section.pairs.empty() ? Json::object() : Measure(engine, png, last);
}

Json ImageReport::Measure(const infer::Engine& engine, const std::filesystem::path& png,
                          bool last) {
  const config::PicturesSection& section = config_.pictures;
  if (!pairs_)
    pairs_ = ReadImagePairs(section.pairs, section.caption_key, section.picture_key, engine.vqgan(),
                            engine.layout().frame_size);
  const PairScores scores = MeasurePairs(engine, *pairs_,
                                         {.images = section.pairs_count,
                                          .captions = last ? 0 : section.pairs_count,
                                          .drawing = Drawing()});
  if (section.prompts.empty()) {
    const ImagePairs drawn = SomePairs(*pairs_, section.pairs_count);
    io::WritePng(png, vision::PairGrid(vision::FramesOfTensor(drawn.images_PHWC),
                                       engine.FramesOf(scores.drawn_codes_Dn),
                                       {.columns = section.columns}));
  }
  return ToJson(scores);
}

}  // namespace lwm::eval
