#!/usr/bin/env python3
"""Trains the shipped recipes for some steps with two builds and says whether their metrics are equal.

Usage: tools/compare_builds.py BEFORE AFTER [--steps 50] [--recipes quickstart,any-to-any-small,vqgan-clipart]

BEFORE and AFTER are `lwm` programs. Each recipe runs in f32 and in bf16, on one rank of one thread.
Every number of every step must be the same bit for bit, except speed and
memory. For changes that are to move code and no result; run it from the root of the repository.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

MEASURED = ("per_s", "tflops", "peak", "seconds")  # of speed and memory: parts of their names


def run(program, recipe, dtype, steps, folder):
    """The metrics of each step, without those that are measured."""
    image_model = recipe.startswith("vqgan")
    settings = [f"train.steps={steps}", f"train.run_folder={folder}", f"train.dtype={dtype}",
                f"train.checkpoint_every={steps}", "train.log_every=1",
                *([] if image_model else ["parallel.mesh=1,1,1,-1"])]
    command = [program, *(["vqgan"] if image_model else []), "train",
               "--config", f"recipes/{recipe}.toml", "--threads", "1"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items()
             if not any(part in name for part in MEASURED)} for line in lines]


def difference(before, after):
    """The first step whose metrics differ, in words; None when all are equal."""
    if len(before) != len(after):
        return f"{len(before)} and {len(after)} lines of metrics"
    for old, new in zip(before, after):
        if old != new:
            names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
            return f"step {old.get('step')}: " + ", ".join(
                f"{name} {old.get(name)} and {new.get(name)}" for name in names)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--recipes", default="quickstart,any-to-any-small,vqgan-clipart")
    given = parser.parse_args()
    failed = False
    for recipe in given.recipes.split(","):
        for dtype in ("f32", "bf16"):
            with tempfile.TemporaryDirectory() as folder:
                metrics = [run(program, recipe, dtype, given.steps, pathlib.Path(folder) / name)
                           for name, program in (("before", given.before), ("after", given.after))]
            found = difference(*metrics)
            failed |= found is not None
            print(f"{recipe} {dtype}: {len(metrics[0])} lines of metrics, {found or 'equal'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
