"""Directories that lwm writes load in transformers and give the numbers that lwm gives."""
import safetensors.torch
import torch
import transformers

import checkpoints


class TransformersTest(checkpoints.CheckpointTest):
    def check(self, **settings):
        torch.manual_seed(1)
        input_ids = torch.randint(0, 96, (2, 40), dtype=torch.int32)
        original = checkpoints.tiny_llama(self.folder / "saved", **settings)
        written = self.convert(self.folder / "saved", "written", "--max-shard-gb", "0.0001")
        model, loading = transformers.LlamaForCausalLM.from_pretrained(written, output_loading_info=True)
        for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            self.assertFalse(loading[problem], problem)
        safetensors.torch.save_file({"input_ids": input_ids}, self.folder / "in.safetensors")
        checkpoints.lwm("logits", "--model", written, "--input", self.folder / "in.safetensors", "--output",
                        self.folder / "out.safetensors", "--dtype", "f32", "--threads", "1")
        logits = safetensors.torch.load_file(self.folder / "out.safetensors")["logits"]
        with torch.no_grad():
            for reference in (original, model.eval()):
                expected = reference(input_ids.long()).logits
                self.assertGreater(expected.abs().max(), 1)
                self.assertLess((logits - expected).abs().max(), 1e-4)

    def test_sharded_directory_of_grouped_queries(self):
        self.check(num_key_value_heads=2)

    def test_tied_directory_with_a_head_size_of_its_own(self):
        self.check(tie_word_embeddings=True, head_dim=8)

    def test_linear_rope_scaling(self):
        self.check(rope_parameters=checkpoints.LINEAR)

    def test_llama3_rope_scaling(self):
        self.check(rope_parameters=checkpoints.LLAMA3)
