"""AutoTokenizer and lwm give the same ids and the same greedy text on every directory that lwm writes."""
import json
import pathlib
import random
import shutil
import subprocess

import tokenizers
import torch
import transformers

import checkpoints

RECIPE = """[model]
hidden_size = 64
intermediate_size = 96
num_hidden_layers = 1
num_attention_heads = 2
vocab_size = 512
[data]
train = ["{text}"]
row_tokens = 128
{tokenizer}
[train]
run_folder = "{run}"
steps = {steps}
rows_per_step = 4
dtype = "f32"
[optimizer]
lr = 1e-2
"""
PIECES = ["the", "Tom", " ", "  ", "    ", "\n", "\n\n", "\t", "1", "1876", "42", ".", "...", "'s", "\N{EM DASH}", "na\u00efve",
          "\u6771\u4eac", "\u041c\u043e\u0441\u043a\u0432\u0430", "\u0627\u0644\u0633\u0644\u0627\u0645", "\u0939\u093f\u0928\u094d\u0926\u0940",
          "\U0001F600", "\U0001F469\u200d\U0001F680", "e\u0301", "a", "b", "I", "AND", "said", "river", "<", ">", "#", "\u2581", "\u00a0", "\r\n"]


def lines(count=300):
    """Texts with digits, runs of spaces, line ends, other scripts, emoji, spaces at both ends."""
    drawn = random.Random(5)
    fixed = ["", " ", "  ", "a", " a", "a ", "  a  ", "\n", " \n ", "1 2  3", "Tom said.", "<tool>", "a<tool> b", "x <tool>y<tool>"]
    return fixed + ["".join(drawn.choice(PIECES) for _ in range(drawn.randint(1, 12))) for _ in range(count)]


def lwm_ids(path, texts):
    text = "".join(json.dumps(line) + "\n" for line in texts)
    run = subprocess.run([checkpoints.LWM, "tokenize", "--tokenizer", str(path)], input=text, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def byte_bpe(folder, added=()):
    """A byte-level tokenizer cut as SmolLM2's, with added tokens (content, special, flags)."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    pre = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    text = (checkpoints.ROOT / "samples/text/tom_sawyer.txt").read_text()[:50000]
    tokenizer.train_from_iterator([text], tokenizers.trainers.BpeTrainer(vocab_size=400, special_tokens=["<|end|>"], show_progress=False,
                                  initial_alphabet=pre.ByteLevel.alphabet()))
    tokenizer.add_tokens([tokenizers.AddedToken(content, special=special, normalized=False, **flags) for content, special, flags in added])
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


class TokenizerTest(checkpoints.CheckpointTest):
    def train(self, name, tokenizer, steps=30, *more):
        recipe = self.folder / "recipe.toml"
        text = self.folder / "text.txt"
        if not text.exists():
            text.write_text((checkpoints.ROOT / "samples/text/tom_sawyer.txt").read_text()[:60000])
        recipe.write_text(RECIPE.format(text=text, run=self.folder / name, steps=steps, tokenizer=tokenizer))
        checkpoints.lwm("train", "--config", recipe, *more)
        return self.folder / name / "model"

    def assert_same_ids(self, folder, tokenizer=None):
        """Those of AutoTokenizer, without what stands around a text and with it."""
        reference = transformers.AutoTokenizer.from_pretrained(folder)
        texts = lines()
        ids = lwm_ids(tokenizer or folder, texts)
        for text, got in zip(texts, ids, strict=True):
            self.assertEqual(got, reference(text, add_special_tokens=False).input_ids, repr(text))
        return reference

    def assert_same_text(self, folder, prompt="Tom said"):
        reference = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ids = reference(prompt, return_tensors="pt").input_ids
        new = model.generate(ids, do_sample=False, max_new_tokens=24, pad_token_id=0)[0]
        want = reference.decode(new, skip_special_tokens=True)
        said = checkpoints.lwm("generate", "--model", folder, "--dtype", "f32", "--prompt", prompt, "--temperature", "0",
                               "--max-new-tokens", 24).removesuffix("\n")
        self.assertNotIn("\ufffd", want)
        self.assertEqual(prompt + said, want)
        self.assertGreater(len(said), 10)

    def test_a_trained_model_with_its_own_tokenizer(self):
        model = self.train("run", "train_tokenizer_vocab = 480")
        self.assert_same_ids(model)
        self.assert_same_text(model)
        converted = self.convert(model, "converted")
        self.assert_same_ids(converted)
        self.assert_same_text(converted)
        gguf = self.convert(model, "model.gguf", "--format", "gguf")
        back = self.convert(gguf, "back")
        self.assert_same_ids(back, gguf)
        self.assert_same_ids(back)
        self.assert_same_text(back)

    def with_added_tokens(self, legacy):
        """A trained model's folder with <tool> and <|im_end|> added behind its pieces, fine-tuned."""
        folder = self.folder / "added"
        shutil.copytree(self.train("run", "train_tokenizer_vocab = 480", 2), folder, symlinks=False)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
        (folder / "added_tokens.json").write_text('{"<tool>": 480, "<|im_end|>": 481}')
        (folder / "tokenizer_config.json").write_text(json.dumps(dict(
            tokenizer_class="LlamaTokenizer", legacy=legacy, add_bos_token=True, bos_token="<s>", eos_token="<|im_end|>", unk_token="<unk>",
            additional_special_tokens=["<|im_end|>"], chat_template="{{ messages[0].content }}", padding_side="left")))
        (folder / "generation_config.json").write_text('{"eos_token_id": [481, 2], "temperature": 0.6}')
        recipe = self.folder / "tune.toml"
        recipe.write_text(f'[model]\ninit = "{folder}"\n[data]\ntrain = ["{self.folder / "text.txt"}"]\nrow_tokens = 128\n[train]\n'
                          f'run_folder = "{self.folder / "tuned"}"\nsteps = 30\nrows_per_step = 4\ndtype = "f32"\n[optimizer]\nlr = 1e-2\n')
        checkpoints.lwm("train", "--config", recipe)
        return self.folder / "tuned" / "model"

    def test_a_fine_tuned_model_keeps_added_tokens_template_and_stops(self):
        for legacy in (False, True):
            with self.subTest(legacy=legacy):
                tuned = self.with_added_tokens(legacy)
                for folder in (tuned, self.convert(self.convert(tuned, "m.gguf", "--format", "gguf"), "back")):
                    reference = self.assert_same_ids(folder)
                    self.assertEqual(reference.convert_tokens_to_ids(["<tool>", "<|im_end|>"]), [480, 481])
                    self.assertEqual(reference.eos_token, "<|im_end|>")
                    self.assertEqual(reference.padding_side, "left")
                    self.assertEqual(reference.chat_template, "{{ messages[0].content }}")
                    generation = transformers.GenerationConfig.from_pretrained(folder)
                    self.assertEqual(sorted(generation.eos_token_id), [2, 481])
                    self.assertEqual(generation.temperature, 0.6)
                    self.assert_same_text(folder)
                for path in self.folder.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def test_a_byte_level_tokenizer_with_added_tokens(self):
        added = [("<tool>", False, {}), ("[SEP]", False, dict(lstrip=True, rstrip=True)), ("Tom", False, dict(single_word=True)),
                 ("<|im_end|>", True, {})]
        source = self.folder / "source"
        checkpoints.tiny_llama(source, vocab_size=405)
        byte_bpe(source, added)
        (source / "tokenizer_config.json").write_text(json.dumps(dict(
            tokenizer_class="GPT2Tokenizer", bos_token="<|end|>", eos_token="<|im_end|>", add_bos_token=True)))
        converted = self.convert(source, "converted")
        self.assert_same_ids(converted)
        gguf = self.convert(source, "m.gguf", "--format", "gguf")
        back = self.convert(gguf, "back")
        self.assert_same_ids(back)
        self.assert_same_ids(back, gguf)
        tuned = self.train("run", f'tokenizer = "{pathlib.Path(source) / "tokenizer.json"}"')
        self.assert_same_ids(tuned)
        self.assert_same_text(tuned)
