"""Small random checkpoints, runs of `lwm`, and tensors by name: what the tests of this folder share.

LWM_BINARY names the program (default build/lwm).
"""
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

import safetensors.torch
import torch
import transformers

transformers.utils.logging.disable_progress_bar()
ROOT = pathlib.Path(__file__).resolve().parents[2]
LWM = os.environ.get("LWM_BINARY", str(ROOT / "build" / "lwm"))
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32, "rope_theta": 5e5}


def lwm(*arguments):
    run = subprocess.run([LWM, *map(str, arguments)], capture_output=True, text=True)
    assert run.returncode == 0, f"lwm {arguments}: {run.stderr}"
    return run.stdout


def tiny_llama(folder, dtype=torch.float32, **settings):
    """A random LlamaForCausalLM, saved by transformers into `folder`."""
    sizes = dict(vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                 num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64,
                 rms_norm_eps=1e-5, initializer_range=0.3, tie_word_embeddings=False)
    torch.manual_seed(7)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**sizes, **settings}))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.copy_(1 + 0.2 * torch.randn_like(weight))
    model.to(dtype).save_pretrained(folder)
    return model.eval()


def tensors_of(folder):
    """Every tensor of the safetensors files of a folder."""
    tensors = {}
    for file in sorted(pathlib.Path(folder).glob("*.safetensors")):
        tensors.update(safetensors.torch.load_file(file))
    return tensors


def sizes_of(folder):
    """What config.json says of the architecture."""
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    keys = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings"]
    theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    return {**{key: config[key] for key in keys}, "rope_theta": theta}


class CheckpointTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def convert(self, source, name, *arguments):
        """Converts into self.folder/name and returns that path."""
        lwm("convert", "--from", source, "--to", self.folder / name, *arguments)
        return self.folder / name

    def assert_same_tensors(self, got, want):
        self.assertEqual(sorted(got), sorted(want))
        for name, tensor in want.items():
            self.assertEqual(got[name].dtype, tensor.dtype, name)
            self.assertEqual(got[name].shape, tensor.shape, name)
            same = torch.equal(got[name].contiguous().view(torch.uint8), tensor.contiguous().view(torch.uint8))
            self.assertTrue(same, name)
