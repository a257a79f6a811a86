"""Fails when a file under lwm/ includes a module or a library that its folder may not."""
import pathlib
import re
import sys

LAYERS = {  # module: the modules it may include besides itself
    "base": [],
    "config": ["base"],
    "kernels": ["base"],
    "io": ["base"],
    "dist": ["base"],
    "jinja": ["base"],
    "ops": ["base", "kernels", "dist"],
    "model": ["base", "config", "io", "ops"],
    "vision": ["base", "config", "io", "ops"],
    "checkpoint": ["base", "config", "io", "ops", "model", "vision"],
    "data": ["base", "config", "io", "dist", "jinja", "vision", "checkpoint"],
    "run": ["base", "config", "io", "dist"],
    "train": ["base", "config", "io", "dist", "ops", "model", "vision", "checkpoint", "data", "run"],
    "vision_train": ["base", "config", "io", "dist", "ops", "model", "vision", "checkpoint", "run"],
    "infer": ["base", "config", "io", "dist", "ops", "model", "vision", "checkpoint", "data"],
    "eval": ["base", "config", "io", "dist", "model", "vision", "checkpoint", "data", "infer"],
}
TENSOR_MODULES = ["ops", "model", "vision", "checkpoint", "train", "vision_train", "infer", "eval",
                  "data/code_cache"]
LIBRARIES = {  # third-party header prefix: where it may appear (module, or module/file stem)
    "torch/torch.h": [],  # 7 s per file; include the narrow headers instead
    "torch/": TENSOR_MODULES,
    "ATen/": TENSOR_MODULES,
    "c10/": TENSOR_MODULES,
    "hwy/": ["kernels"],
    "oneapi/": ["kernels/matmul_tile"],
    "mpi.h": ["dist/communicator_mpi"],
    "jpeglib.h": ["io/image_jpeg"],
    "png.h": ["io/image_png"],
    "tiffio.h": ["io/image_tiff"],
    "webp/": ["io/image_webp"],
    "libav": ["io/ffmpeg", "io/ffmpeg_input", "io/ffmpeg_image", "io/mp4_writer", "io/video_reader"],
    "libswscale/": ["io/ffmpeg_image", "io/mp4_writer"],
    "msgpack": ["io/msgpack_stream"],
    "toml++/": ["config/toml"],
    "nlohmann/": ["base/json"],
    "xxhash.h": ["base/file"],
    "sentencepiece": ["data/tokenizer_sentencepiece"],
    "zlib.h": ["data/gzip"],
    "pcre2.h": ["data/pattern_pcre2"],
}
MAX_LINES = 800
# lwm/testing holds fixtures that tests of several modules share: it may include every module, and
# only *_test.cc may include it.


def check(root):
    problems = []
    for path in sorted([*root.rglob("*.h"), *root.rglob("*.cc")]):
        module = path.relative_to(root).parts[0]
        place = f"{module}/{path.stem.removesuffix('_test')}"
        lines = path.read_text().splitlines()
        allowed = list(LAYERS) if module == "testing" else LAYERS[module]
        if path.stem.endswith("_test"):
            allowed = [*allowed, "testing"]
        if len(lines) > MAX_LINES:
            problems.append(f"{path}: {len(lines)} lines, limit {MAX_LINES}")
        for number, line in enumerate(lines, 1):
            if ours := re.match(r'\s*#include "lwm/([a-z_]+)/', line):
                if ours[1] != module and ours[1] not in allowed:
                    problems.append(f"{path}:{number}: {module} may not include {ours[1]}")
            elif other := re.match(r"\s*#include <([^>]+)>", line):
                rule = next((p for p in LIBRARIES if other[1].startswith(p)), None)
                if rule and module != "testing" and not {module, place} & set(LIBRARIES[rule]):
                    problems.append(f"{path}:{number}: {place} may not include <{other[1]}>")
    return problems


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1]))
    print("\n".join(found))
    sys.exit(bool(found))
