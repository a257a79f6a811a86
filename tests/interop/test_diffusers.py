"""A VQGAN goes from diffusers to the published pickle and back; each loads where it belongs."""
import pickle

import diffusers
import numpy
import torch

import checkpoints

SETTINGS = dict(block_out_channels=(8, 8, 16), down_block_types=("DownEncoderBlock2D",) * 3,
                up_block_types=("UpDecoderBlock2D",) * 3, latent_channels=8, layers_per_block=1, norm_num_groups=4,
                num_vq_embeddings=32, sample_size=16, mid_block_add_attention=False, lookup_from_codebook=True)


def leaves(tree, path=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}/")
        else:
            yield path + key, value


class DiffusersTest(checkpoints.CheckpointTest):
    def setUp(self):
        super().setUp()
        torch.manual_seed(3)
        self.model = diffusers.VQModel(**SETTINGS).eval()
        self.model.save_pretrained(self.folder / "saved")
        self.pickled = self.convert(self.folder / "saved", "pickled", "--format", "lwm-jax") / "vqgan"

    def test_directory_loads_in_diffusers_and_decodes_the_same(self):
        back = self.convert(self.pickled, "back", "--format", "diffusers")
        saved, written = checkpoints.tensors_of(self.folder / "saved"), checkpoints.tensors_of(back)
        self.assert_same_tensors(written, saved)
        model, loading = diffusers.VQModel.from_pretrained(back, output_loading_info=True)
        self.assertFalse(loading["missing_keys"])
        self.assertFalse(loading["unexpected_keys"])
        codes = torch.randint(0, 32, (2, 4, 4))
        images = [m.decode(codes, force_not_quantize=True, shape=(2, 4, 4, 8)).sample.detach()
                  for m in (self.model, model.eval())]
        self.assertTrue(torch.equal(*images))
        self.assertGreater(images[0].std(), 0.01)

    def test_pickle_is_a_tree_of_arrays_and_comes_back_the_same(self):
        with open(self.pickled, "rb") as file:
            tree = dict(leaves(pickle.load(file)))
        self.assertTrue(all(isinstance(array, numpy.ndarray) for array in tree.values()))
        count = sum(array.size for array in tree.values())
        self.assertEqual(count, sum(p.numel() for p in self.model.parameters()))
        kernel = self.model.encoder.conv_in.weight.detach().numpy().transpose(2, 3, 1, 0)
        self.assertTrue(numpy.array_equal(tree["encoder/Conv_0/kernel"], kernel))
        back = self.convert(self.pickled, "back", "--format", "diffusers")
        again = self.convert(back, "again", "--format", "lwm-jax") / "vqgan"
        self.assertEqual(again.read_bytes(), self.pickled.read_bytes())
