// continue_text MODEL TEXT: the 20 likeliest tokens after a text, one greedy step after another.
#include <iostream>

#include "lwm/checkpoint/model_directory.h"
#include "lwm/data/tokenizer.h"
#include "lwm/infer/generator.h"

int main(int argc, char** argv) try {
  if (argc != 3) throw std::runtime_error("usage: continue_text MODEL TEXT");
  const auto tokenizer = lwm::data::OpenTokenizer(argv[1]);
  auto weights = lwm::model::LoadModel(argv[1], at::kFloat);
  std::vector<int64_t> prompt;
  if (tokenizer->begins_with_bos()) prompt.push_back(tokenizer->bos_id());
  for (const int32_t id : tokenizer->Encode(argv[2])) prompt.push_back(id);
  lwm::infer::GenerateOptions options;
  options.max_new_tokens = 20;
  options.sampling.temperature = 0;
  lwm::data::StreamDecoder decoder(*tokenizer);
  for (const int64_t id : prompt) decoder.Push(static_cast<int32_t>(id));
  lwm::infer::Generate(lwm::infer::DecodeModel(weights.config(), weights), prompt, options,
                       [&](int64_t id) {
                         std::cout << decoder.Push(static_cast<int32_t>(id)) << std::flush;
                         return true;
                       });
  std::cout << decoder.Finish() << "\n";
} catch (const std::exception& error) {
  std::cerr << "continue_text: " << error.what() << "\n";
  return 1;
}
