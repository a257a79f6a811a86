"""Writes blocks.gguf, random blocks of every type of GGUF that lwm reads, and expected.safetensors, the f32 weights
that the `gguf` package reads out of them."""
import pathlib

import gguf
import numpy
import safetensors.numpy

ROWS, COLUMNS = 3, 512
TYPES = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 IQ4_NL Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_XS".split()
# Where a block's f16 scales stand; all other bytes may be anything.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "IQ4_NL": [0], "Q2_K": [80, 82],
          "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_XS": [0]}


def random_blocks(random, name):
    size, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    blocks = random.integers(0, 256, (ROWS * COLUMNS // size, block_bytes), dtype=numpy.uint8)
    for at in SCALES[name]:
        scales = random.standard_normal(len(blocks)).astype(numpy.float16)
        blocks[:, at:at + 2] = scales[:, None].view(numpy.uint8)
    return blocks.reshape(ROWS, -1)


def main():
    folder = pathlib.Path(__file__).parent
    random = numpy.random.default_rng(11)
    writer, expected = gguf.GGUFWriter(folder / "blocks.gguf", "llama"), {}
    for name in TYPES:
        kind, blocks = gguf.GGMLQuantizationType[name], random_blocks(random, name)
        writer.add_tensor(name, blocks, raw_dtype=kind)
        expected[name] = gguf.quants.dequantize(blocks, kind).astype(numpy.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    safetensors.numpy.save_file(expected, folder / "expected.safetensors")


main()
