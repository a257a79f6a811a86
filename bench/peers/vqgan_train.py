"""One training step of the VQGAN of recipes/vqgan-clipart.toml in PyTorch on this CPU: pictures/s, peak memory, one JSON line.

Usage: python vqgan_train.py [--batch 8 --dtype f32|bf16 --threads 2 --steps 20]
The same model and loss as `lwm bench vqgan-train`: space-to-depth 4, 64 and 128 channels, EMA codebook of 512, L1 + MSE + commitment,
AdamW (fused), clipping, average of the weights. bf16 is autocast over f32 weights. The best of three rounds after one to warm up counts.
"""
import argparse, json, resource, time
import torch
from torch import nn
from torch.nn import functional as F

p = argparse.ArgumentParser()
for name, default in dict(batch=8, threads=2, steps=20).items():
    p.add_argument("--" + name, type=int, default=default)
p.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
p.add_argument("--channels-last", action="store_true")
a = p.parse_args()
torch.set_num_threads(a.threads)
torch.manual_seed(0)
GROUPS, DIM, CODES, S2D, WIDTHS = 8, 16, 512, 4, [64, 128]


class Resnet(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, i, 1e-6), nn.GroupNorm(GROUPS, o, 1e-6)
        self.conv1, self.conv2 = nn.Conv2d(i, o, 3, padding=1), nn.Conv2d(o, o, 3, padding=1)
        self.shortcut = nn.Conv2d(i, o, 1) if i != o else nn.Identity()

    def forward(self, x):
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class Down(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def side(first, widths, last, layers, resample, middle_first):
    levels, previous = [], widths[0]
    for n, width in enumerate(widths):
        for _ in range(layers):
            levels.append(Resnet(previous, width))
            previous = width
        if n + 1 < len(widths):
            levels.append(resample(width))
    wide = widths[0] if middle_first else widths[-1]
    middle = [Resnet(wide, wide), Resnet(wide, wide)]
    body = middle + levels if middle_first else levels + middle
    return nn.Sequential(nn.Conv2d(first, widths[0], 3, padding=1), *body, nn.GroupNorm(GROUPS, widths[-1], 1e-6), nn.SiLU(),
                         nn.Conv2d(widths[-1], last, 3, padding=1))


class Vqgan(nn.Module):
    def __init__(self):
        super().__init__()
        pixels = 3 * S2D * S2D
        self.encoder = nn.Sequential(nn.PixelUnshuffle(S2D), side(pixels, WIDTHS, DIM, 1, Down, False), nn.Conv2d(DIM, DIM, 1))
        self.decoder = nn.Sequential(nn.Conv2d(DIM, DIM, 1), side(DIM, WIDTHS[::-1], pixels, 2, Up, True), nn.PixelShuffle(S2D))
        self.register_buffer("codebook", torch.randn(CODES, DIM) * 0.3)
        self.register_buffer("count", torch.ones(CODES))
        self.register_buffer("sum", self.codebook.clone())

    def forward(self, x):
        z = self.encoder(x).float().permute(0, 2, 3, 1)
        flat = z.detach().reshape(-1, DIM)
        code = (self.codebook.square().sum(1) - 2 * flat @ self.codebook.t()).argmin(1)
        row = self.codebook[code].view_as(z)
        y = self.decoder((z + (row - z).detach()).permute(0, 3, 1, 2)).float()
        return F.l1_loss(y, x) + F.mse_loss(y, x) + 0.25 * F.mse_loss(z, row), flat, code

    @torch.no_grad()
    def follow(self, flat, code):
        self.count.mul_(0.98).add_(torch.bincount(code, minlength=CODES), alpha=0.02)
        self.sum.mul_(0.98).add_(torch.zeros_like(self.sum).index_add_(0, code, flat), alpha=0.02)
        total = self.count.sum()
        self.codebook.copy_(self.sum / ((self.count + 1e-5) / (total + CODES * 1e-5) * total).unsqueeze(1))


model = Vqgan()
if a.channels_last:
    model = model.to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
average = [x.detach().clone() for x in model.parameters()]
images = torch.rand(a.batch, 3, 64, 64) * 2 - 1
if a.channels_last:
    images = images.to(memory_format=torch.channels_last)


def step():
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.dtype == "bf16"):
        loss, flat, code = model(images)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    model.follow(flat, code)
    torch._foreach_lerp_(average, [x.detach() for x in model.parameters()], 0.002)
    return loss


best = 1e9
for round in range(4):
    s = time.perf_counter()
    for _ in range(a.steps):
        loss = step()
    if round:
        best = min(best, time.perf_counter() - s)
print(json.dumps(dict(what="torch_vqgan_train", batch=a.batch, dtype=a.dtype, threads=a.threads, params=sum(x.numel() for x in model.parameters()) + CODES * DIM,
                      pictures_per_s=a.batch * a.steps / best, peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, loss=loss.item())))
