"""Streams that lwm writes are read by a reader of tux's format, and tux's records by lwm."""
import ml_dtypes
import msgpack
import numpy
import torch

import checkpoints

LAYER = {"attention/wq": "self_attn.q_proj", "attention/wk": "self_attn.k_proj", "attention/wv": "self_attn.v_proj",
         "attention/wo": "self_attn.o_proj", "feed_forward/w1": "mlp.gate_proj", "feed_forward/w2": "mlp.down_proj",
         "feed_forward/w3": "mlp.up_proj", "attention_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm"}


def dtype_of(name):
    return ml_dtypes.bfloat16 if name == "bfloat16" else numpy.dtype(name)


def array_of(code, data):
    assert code == 1, f"extension {code}"
    shape, name, buffer = msgpack.unpackb(data, raw=False)
    return numpy.frombuffer(buffer, dtype=dtype_of(name)).reshape(shape)


def read_stream(path):
    """The arrays of a stream by path, as tux and EasyLM read it: records until the file ends."""
    arrays = {}
    with open(path, "rb") as file:
        for key, blob in msgpack.Unpacker(file, read_size=1 << 20, max_buffer_size=1 << 30):
            leaf = msgpack.unpackb(blob, ext_hook=array_of, strict_map_key=False)
            if isinstance(leaf, dict):
                chunks = [leaf["chunks"][str(i)] for i in range(len(leaf["chunks"]))]
                leaf = numpy.concatenate(chunks).reshape([leaf["shape"][str(i)] for i in range(len(leaf["shape"]))])
            arrays["/".join(key)] = leaf
    return arrays


def write_stream(path, arrays, chunk_elements):
    """The reverse; arrays above `chunk_elements` are cut as tux cuts those above a gigabyte."""
    def extension(array):
        header = [list(array.shape), str(array.dtype), array.tobytes()]
        return msgpack.ExtType(1, msgpack.packb(header, use_bin_type=True))

    with open(path, "wb") as file:
        for key, array in arrays.items():
            leaf = extension(array)
            if array.size > chunk_elements:
                flat = array.reshape(-1)
                parts = [flat[i:i + chunk_elements] for i in range(0, array.size, chunk_elements)]
                leaf = {"__msgpack_chunked_array__": True,
                        "shape": {str(i): size for i, size in enumerate(array.shape)},
                        "chunks": {str(i): extension(part) for i, part in enumerate(parts)}}
            blob = msgpack.packb(leaf, use_bin_type=True)
            file.write(msgpack.packb([key.split("/"), blob], use_bin_type=True))


def pairs(weight, heads):
    """Rows of rotary halves to the adjacent pairs that the published model rotates."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).transpose(0, 2, 1, 3).reshape(rows, columns)


def published_arrays(tensors, layers, heads, kv_heads):
    arrays = {"transformer/wte/embedding": tensors["model.embed_tokens.weight"],
              "transformer/ln_f/kernel": tensors["model.norm.weight"], "lm_head/kernel": tensors["lm_head.weight"].T}
    for name, part in LAYER.items():
        weights = [tensors[f"model.layers.{i}.{part}.weight"] for i in range(layers)]
        if name in ("attention/wq", "attention/wk"):
            weights = [pairs(w, heads if name.endswith("q") else kv_heads) for w in weights]
        arrays[f"transformer/h/scan_decoder/{name}/kernel"] = numpy.stack([w.T for w in weights])
    return {key: numpy.ascontiguousarray(array) for key, array in arrays.items()}


class JaxStreamTest(checkpoints.CheckpointTest):
    def saved(self, dtype):
        checkpoints.tiny_llama(self.folder / "saved", dtype, num_key_value_heads=2)
        kind = ml_dtypes.bfloat16 if dtype == torch.bfloat16 else numpy.float32
        tensors = {name: tensor.float().numpy().astype(kind)
                   for name, tensor in checkpoints.tensors_of(self.folder / "saved").items()}
        return published_arrays(tensors, layers=2, heads=4, kv_heads=2)

    def test_written_stream_holds_the_published_arrays(self):
        for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "f32")):
            expected = self.saved(dtype)
            stream = self.convert(self.folder / "saved", name, "--format", "lwm-jax") / "streaming_params"
            arrays = read_stream(stream)
            self.assertEqual(sorted(arrays), sorted(expected))
            for key, array in expected.items():
                self.assertEqual(arrays[key].dtype, array.dtype, key)
                self.assertEqual(arrays[key].shape, array.shape, key)
                self.assertEqual(arrays[key].tobytes(), array.tobytes(), key)

    def test_stream_of_another_writer_with_chunks_converts(self):
        expected = self.saved(torch.bfloat16)
        write_stream(self.folder / "stream", expected, chunk_elements=700)
        back = self.convert(self.folder / "stream", "back", "--config", self.folder / "saved/config.json")
        self.assert_same_tensors(checkpoints.tensors_of(back), checkpoints.tensors_of(self.folder / "saved"))
