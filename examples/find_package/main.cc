// continue_text MODEL TEXT: the 20 likeliest tokens after a text, one greedy step after another.
#include <iostream>

#include "lwm/data/prompt.h"
#include "lwm/infer/engine.h"

int main(int argc, char** argv) try {
  if (argc != 3) throw std::runtime_error("usage: continue_text MODEL TEXT");
  const lwm::infer::Engine engine(argv[1], {.dtype = at::kFloat});
  const auto prompt = lwm::data::EncodePrompt(engine.tokenizer(), argv[2]);
  auto request = lwm::infer::TextRequest(prompt);
  request.max_new_tokens = 20;
  request.text.temperature = 0;
  lwm::data::StreamDecoder decoder(engine.tokenizer());
  for (const int32_t id : prompt) decoder.Push(id);
  engine.Generate({request}, [&](size_t, int64_t id, bool) {
    std::cout << decoder.Push(static_cast<int32_t>(id)) << std::flush;
    return true;
  });
  std::cout << decoder.Finish() << "\n";
} catch (const std::exception& error) {
  std::cerr << "continue_text: " << error.what() << "\n";
  return 1;
}
