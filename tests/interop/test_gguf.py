"""GGUF files that lwm writes are read by the gguf package: keys, names, shapes, values, vocabulary."""
import json
import subprocess

import gguf
import numpy
import safetensors.torch
import tokenizers
import torch

import checkpoints

NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
OUTER = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}


def gguf_name(name):
    if name in OUTER:
        return OUTER[name]
    layer, part = name.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{NAMES[part.removesuffix('.weight')]}.weight"


def interleave(weight, heads):
    """Rotary halves to the adjacent pairs of GGUF."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def expected_tensors(tensors, heads, kv_heads):
    for name, weight in tensors.items():
        if "q_proj" in name:
            weight = interleave(weight, heads)
        if "k_proj" in name:
            weight = interleave(weight, kv_heads)
        yield gguf_name(name), weight.numpy()


class GgufTest(checkpoints.CheckpointTest):
    def setUp(self):
        super().setUp()
        checkpoints.tiny_llama(self.folder / "saved", num_key_value_heads=2)
        tensors = checkpoints.tensors_of(self.folder / "saved")
        self.expected = dict(expected_tensors(tensors, heads=4, kv_heads=2))

    def read(self, *arguments):
        path = self.convert(self.folder / "saved", "model.gguf", "--format", "gguf", *arguments)
        reader = gguf.GGUFReader(path)
        self.assertEqual(sorted(t.name for t in reader.tensors), sorted(self.expected))
        for tensor in reader.tensors:
            self.assertEqual(list(reversed(tensor.shape.tolist())), list(self.expected[tensor.name].shape))
        return reader

    def test_f32_file_holds_the_values_and_the_config(self):
        reader = self.read("--dtype", "f32")
        for tensor in reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            self.assertTrue(numpy.array_equal(values, self.expected[tensor.name]), tensor.name)
        contents = {key: field.contents() for key, field in reader.fields.items()}
        self.assertEqual(contents["general.architecture"], "llama")
        for key, value in {"block_count": 2, "context_length": 64, "embedding_length": 64, "feed_forward_length": 96,
                           "attention.head_count": 4, "attention.head_count_kv": 2,
                           "rope.freq_base": 10000.0}.items():
            self.assertEqual(contents["llama." + key], value, key)
        self.assertAlmostEqual(contents["llama.attention.layer_norm_rms_epsilon"], 1e-5, places=10)

    def test_half_files_hold_the_rounded_values(self):
        for dtype, kind in (("f16", torch.float16), ("bf16", torch.bfloat16)):
            (self.folder / "model.gguf").unlink(missing_ok=True)
            for tensor in self.read("--dtype", dtype).tensors:
                expected = torch.from_numpy(self.expected[tensor.name].copy())
                if expected.dim() == 2:
                    expected = expected.to(kind).float()
                values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
                self.assertTrue(numpy.array_equal(values, expected.numpy()), tensor.name)

    def test_quantised_blocks_are_those_of_the_package(self):
        for name, kind in (("q8_0", gguf.GGMLQuantizationType.Q8_0), ("q4_0", gguf.GGMLQuantizationType.Q4_0)):
            (self.folder / "model.gguf").unlink(missing_ok=True)
            blocks = 0
            for tensor in self.read("--quantize", name).tensors:
                expected = self.expected[tensor.name]
                if expected.ndim == 1:
                    self.assertTrue(numpy.array_equal(tensor.data, expected), tensor.name)
                    continue
                self.assertEqual(tensor.tensor_type, kind, tensor.name)
                self.assertTrue(numpy.array_equal(tensor.data, gguf.quants.quantize(expected, kind)), tensor.name)
                values = gguf.quants.dequantize(tensor.data, kind)
                step = numpy.abs(expected).max() / (127 if name == "q8_0" else 8)
                self.assertLess(numpy.abs(values - expected).max(), 1.01 * step, tensor.name)
                blocks += values.size // 32
            self.assertGreater(blocks, 1000)

    def test_vocabulary_is_the_one_of_the_source(self):
        stories = checkpoints.ROOT / "tests/golden/tiny_stories"
        model = self.convert(stories / "stories260K.bin", "stories", "--tokenizer", stories / "tok512.bin")
        path = self.convert(model, "stories.gguf", "--format", "gguf")
        fields = gguf.GGUFReader(path).fields
        tokens = fields["tokenizer.ggml.tokens"].contents()
        self.assertEqual(fields["tokenizer.ggml.model"].contents(), "llama")
        self.assertEqual(len(tokens), 512)
        self.assertEqual(tokens[:4], ["<unk>", "<s>", "</s>", "<0x00>"])
        self.assertIn("\N{LOWER ONE EIGHTH BLOCK}the", tokens)
        self.assertEqual(fields["tokenizer.ggml.token_type"].contents()[:4], [2, 3, 3, 6])
        self.assertEqual(len(fields["tokenizer.ggml.scores"].contents()), 512)

    def test_directory_in_blocks_holds_the_blocks_of_the_package(self):
        saved = checkpoints.tensors_of(self.folder / "saved")
        for name, kind in (("q8_0", gguf.GGMLQuantizationType.Q8_0), ("q4_0", gguf.GGMLQuantizationType.Q4_0)):
            folder = self.convert(self.folder / "saved", name, "--quantize", name)
            with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
                self.assertEqual(file.metadata()["lwm.blocks"], kind.name)
            written = checkpoints.tensors_of(folder)
            self.assertEqual(sorted(written), sorted(saved))
            for key, weight in saved.items():
                expected = weight.numpy() if weight.dim() == 1 else gguf.quants.quantize(weight.numpy(), kind)
                self.assertTrue(numpy.array_equal(written[key].numpy(), expected), key)

    def test_byte_level_vocabulary_is_the_one_of_tokenizer_json(self):
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        steps = [tokenizers.pre_tokenizers.Digits(individual_digits=True),
                 tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(steps)
        text = "the cat and the hat and the 1234 caf\N{LATIN SMALL LETTER E WITH ACUTE}s on the mat\n"
        tokenizer.train_from_iterator([text] * 3, tokenizers.trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<|end|>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
        checkpoints.tiny_llama(self.folder / "bpe", vocab_size=tokenizer.get_vocab_size())
        tokenizer.save(str(self.folder / "bpe/tokenizer.json"))
        path = self.convert(self.folder / "bpe", "bpe.gguf", "--format", "gguf")
        fields = gguf.GGUFReader(path).fields
        self.assertEqual(fields["tokenizer.ggml.model"].contents(), "gpt2")
        self.assertEqual(fields["tokenizer.ggml.pre"].contents(), "smollm")
        tokens = fields["tokenizer.ggml.tokens"].contents()
        self.assertEqual(tokens, [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())])
        self.assertEqual(fields["tokenizer.ggml.token_type"].contents()[:2], [3, 1])
        self.assertGreater(len(fields["tokenizer.ggml.merges"].contents()), 10)
        back = self.convert(path, "back")
        again = tokenizers.Tokenizer.from_file(str(back / "tokenizer.json"))
        for sample in (text, "the 99 hats", "", " \n\n the\tcat"):
            ids = tokenizer.encode(sample).ids
            self.assertEqual(again.encode(sample).ids, ids)
            run = subprocess.run([checkpoints.LWM, "tokenize", "--tokenizer", path], input=json.dumps(sample),
                                 capture_output=True, text=True, check=True)
            self.assertEqual(json.loads(run.stdout), ids)
