"""Writes state.bin (torch.save) and values.safetensors: every dtype, views into one storage, strides,
a 0-d and an empty tensor, a Parameter, an OrderedDict with _metadata. Needs torch, safetensors."""
import collections
import pathlib

import torch
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent
torch.manual_seed(0)
base = torch.randn(6, 8)
state = collections.OrderedDict(
    (str(dtype).split(".")[1], (torch.arange(12).reshape(3, 4) - 5).to(dtype))
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64,
                  torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool))
state.update({
    "rows": base[2:5],
    "columns": base[:, 3:6],
    "transposed": base.t(),
    "cube": torch.randn(2, 3, 4).permute(2, 0, 1),
    "scalar": torch.tensor(2.5),
    "empty": torch.empty(0, 3),
    "parameter": torch.nn.Parameter(torch.randn(3)),
})
state._metadata = collections.OrderedDict([("", {"version": 1})])
torch.save(state, here / "state.bin")
save_file({k: v.detach().clone().contiguous() for k, v in state.items()}, here / "values.safetensors")
