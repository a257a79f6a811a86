"""Fails when a program in the folder given does not explain itself and end well with --help."""
import os
import pathlib
import subprocess
import sys


def check(folder):
    problems = []
    for path in sorted(pathlib.Path(folder).iterdir()):
        if not path.is_file() or not os.access(path, os.X_OK):
            continue
        done = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=30)
        if done.returncode != 0 or done.stderr:
            problems.append(f"{path} --help ends with {done.returncode}: {done.stderr.strip()}")
        elif len(done.stdout.split()) < 5:
            problems.append(f"{path} --help says too little: {done.stdout.strip()!r}")
    return problems


if __name__ == "__main__":
    found = check(sys.argv[1])
    print("\n".join(found))
    sys.exit(bool(found))
