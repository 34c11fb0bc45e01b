"""Writes what a benchmark printed into its section of docs/benchmarks.md.

    cargo bench -p bertha-kernels --bench gemm | python benches/peers/document.py gemm

A section stands between `<!-- NAME: made by COMMAND -->` and `<!-- end of NAME -->`.
"""

import os
import re
import sys
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "benchmarks.md"


def update(path, name, text):
    """Replaces the section's content; what is around it stays."""
    path = Path(path)
    document = path.read_text()
    section = re.compile(rf"(<!-- {re.escape(name)}: .*? -->\n).*?(<!-- end of {re.escape(name)} -->)", re.DOTALL)
    document, count = section.subn(lambda found: f"{found[1]}\n{text.strip()}\n\n{found[2]}", document)
    if count != 1:
        sys.exit(f"{path} has {count} sections named {name}, expected one: see {__file__}")
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(document)
    os.replace(unfinished, path)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    text = sys.stdin.read()
    if not text.strip():
        sys.exit("nothing came on standard input: the section stays as it is")
    update(sys.argv[2] if len(sys.argv) == 3 else DOCUMENT, sys.argv[1], text)


if __name__ == "__main__":
    main()
