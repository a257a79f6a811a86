#include "commands.h"

namespace lwm::app {
namespace {

constexpr Command kCommands[] = {
    {"Use a model", "generate", "continue a text", AddGenerate},
    {"Use a model", "image", "draw images from text", AddImage},
    {"Use a model", "video", "draw a video from text, or continue one", AddVideo},

    {"Train", "encode", "images and videos as codes in JSONL, ahead of training", AddEncode},
    {"Train", "tokenizer", "train a tokenizer", AddTokenizer},
    {"Train", "train", "train or extend a model by a recipe", AddTrain},

    {"Evaluate", "bench", "measure this machine and this program", AddBench},
    {"Evaluate", "eval-pictures", "measure images from captions and captions of them",
     AddEvalPictures},
    {"Evaluate", "score", "loss and perplexity of a text, total and by position", AddScore},

    {"Convert", "convert", "turn a checkpoint into another format", AddConvert},
    {"Convert", "tokenize",
     "JSON strings on stdin to JSON arrays of token ids on stdout, one per line", AddTokenize},
    {"Convert", "vqgan", "images and videos as codes, and back", AddVqgan},

    {"Look inside", "attention", "exact attention over the tensors of a file", AddAttention},
    {"Look inside", "examples",
     "apply the field grammar to JSONL: tokens, modality and loss of every line",
     AddExamplesCommand},
    {"Look inside", "inspect", "show what a checkpoint holds", AddInspect},
    {"Look inside", "logits", "logits, losses and gradients of a file of tokens", AddLogits},
    {"Look inside", "pack",
     "what training would see: one JSON object per row, statistics on stderr", AddPack},

    {"", "completion", "completion of lwm for a shell", AddCompletion},
};

}  // namespace

std::span<const Command> Commands() { return kCommands; }

}  // namespace lwm::app
