"""diffusers' VQModel at the published size (146 M parameters, random weights) on this CPU: one JSON object per line.

Usage: python diffusers_vq.py [--threads 2] [--batch 4] [--dtypes float32,bfloat16] [--memory-format contiguous|channels_last]
core_seconds_per_frame is processor time: on a busy machine it says more than frames_per_s.
"""
import argparse, json, resource, time
import torch
from diffusers import VQModel

p = argparse.ArgumentParser()
p.add_argument("--threads", type=int, default=2)
p.add_argument("--batch", type=int, default=4)
p.add_argument("--dtypes", default="float32,bfloat16")
p.add_argument("--memory-format", default="contiguous", choices=["contiguous", "channels_last"])
a = p.parse_args()
torch.set_num_threads(a.threads)
torch.manual_seed(0)
layout = dict(contiguous=torch.contiguous_format, channels_last=torch.channels_last)[a.memory_format]
m = VQModel(block_out_channels=[128, 256, 256, 512, 768], down_block_types=["DownEncoderBlock2D"] * 5,
            up_block_types=["UpDecoderBlock2D"] * 5, layers_per_block=2, latent_channels=64,
            num_vq_embeddings=8192, norm_num_groups=32, lookup_from_codebook=True,
            mid_block_add_attention=False).eval().to(memory_format=layout)


def best(f, n=2):
    f()
    seconds = core_seconds = 1e9
    for _ in range(n):
        s, c = time.perf_counter(), time.process_time()
        f()
        seconds, core_seconds = min(seconds, time.perf_counter() - s), min(core_seconds, time.process_time() - c)
    return seconds, core_seconds


with torch.no_grad():
    for dtype in (getattr(torch, name) for name in a.dtypes.split(",")):
        m = m.to(dtype)
        x = (torch.rand(a.batch, 3, 256, 256, dtype=dtype) * 2 - 1).to(memory_format=layout)
        encode = lambda: m.quantize(m.encode(x).latents)[2][2].reshape(-1)
        codes = encode()
        decode = lambda: m.decode(codes, force_not_quantize=True, shape=(a.batch, 16, 16, 64)).sample
        for name, f in (("encode", encode), ("decode", decode)):
            seconds, core_seconds = best(f)
            print(json.dumps(dict(what="diffusers_vq_" + name, dtype=str(dtype)[6:],
                                  memory_format=a.memory_format, frames_per_s=a.batch / seconds,
                                  core_seconds_per_frame=core_seconds / a.batch,
                                  peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)), flush=True)
