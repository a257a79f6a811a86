"""A checkpoint that goes through another format and back is the same, bit for bit."""
import torch

import checkpoints


class RoundTripTest(checkpoints.CheckpointTest):
    def check(self, dtype, through, **settings):
        saved = self.folder / "saved"
        checkpoints.tiny_llama(saved, dtype, num_key_value_heads=2, **settings)
        other = self.convert(saved, "other", *through)
        back = self.convert(other, "back")
        self.assert_same_tensors(checkpoints.tensors_of(back), checkpoints.tensors_of(saved))
        self.assertEqual(checkpoints.sizes_of(back), checkpoints.sizes_of(saved))

    def test_bf16_through_the_jax_stream(self):
        self.check(torch.bfloat16, ["--format", "lwm-jax"])

    def test_f32_through_the_jax_stream(self):
        self.check(torch.float32, ["--format", "lwm-jax"])

    def test_f32_through_gguf(self):
        self.check(torch.float32, ["--format", "gguf"])

    def test_tied_f32_through_gguf(self):
        self.check(torch.float32, ["--format", "gguf"], tie_word_embeddings=True)

    def test_bf16_through_gguf(self):
        self.check(torch.bfloat16, ["--format", "gguf", "--dtype", "bf16"])
