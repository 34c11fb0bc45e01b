"""Picks the 1,000 lines of tests/golden/minilm/sentences.txt from books in plain text.

    python tests/golden/pick_sentences.py ENGLISH_DIR SPANISH_DIR

Each folder holds .txt or .txt.gz files, UTF-8, paragraphs set apart by blank lines. Takes sentences of all
lengths in fixed shares (`SHARES`) and some whole paragraphs, which a model must truncate.
"""

import gzip
import random
import re
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parent / "minilm" / "sentences.txt"
# (fewest words, most words, English lines, Spanish lines)
SHARES = [(1, 3, 70, 20), (4, 10, 220, 40), (11, 25, 270, 60), (26, 50, 150, 40), (51, 110, 90, 20), (260, 500, 15, 5)]
PARAGRAPH = 200  # words: from here on whole paragraphs are taken


def paragraphs(folder):
    for path in sorted(Path(folder).glob("*.txt*")):
        opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
        with opened as book:
            for paragraph in re.split(r"\n\s*\n", book.read()):
                yield " ".join(paragraph.split())


def sentences(paragraph):
    return re.split(r"(?<=[.!?])[\"'”»)]*\s+(?=[\"'“«(¿¡—-]*[^\W\d_])", paragraph)


def pick(folder, column):
    rng = random.Random(20240229 + column)
    paragraph_list = list(paragraphs(folder))
    sentence_list = [s for p in paragraph_list for s in sentences(p)]
    chosen = []
    for share in SHARES:
        pool = paragraph_list if share[0] >= PARAGRAPH else sentence_list
        fitting = sorted({s for s in pool if share[0] <= len(s.split()) <= share[1] and re.search(r"[^\W\d_]", s)})
        chosen += rng.sample(fitting, share[column])
    return chosen


def main():
    lines = pick(sys.argv[1], 2) + pick(sys.argv[2], 3)
    random.Random(0).shuffle(lines)
    assert len(lines) == len(set(lines)) == 1000
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
