"""Fails when a folder of tests/golden is read by no test: its name, or a prefix of it that ends in
an underscore, must stand in quotes in some test source."""
import pathlib
import re
import sys


def unread(root):
    sources = [*root.glob("lwm/**/*_test.cc"), *root.glob("tests/**/*_test.cc"), *root.glob("tests/**/*.py")]
    quoted = set()
    for source in sources:
        for text in re.findall(r'"([^"\n]*)"', source.read_text()):
            quoted.update(text.split("/"))
    prefixes = tuple(word for word in quoted if len(word) > 2 and word.endswith("_"))
    folders = [path.name for path in (root / "tests/golden").iterdir() if path.is_dir()]
    return sorted(name for name in folders if name not in quoted and not name.startswith(prefixes))


if __name__ == "__main__":
    orphans = unread(pathlib.Path(sys.argv[1]))
    for name in orphans:
        print(f"tests/golden/{name}: no test reads it")
    sys.exit(bool(orphans))
