#!/usr/bin/env python3
"""A task that needs attention: sentences, half of them with their words in another order.

    python recipes/bibert/order.py --train BOOK… --dev BOOK… --output DIR

Books are plain text (.txt, or .txt.gz). Writes DIR/order-train.tsv and order-dev.tsv with the columns sentence and label: 1 as it stood,
0 with all words but the first and the last shuffled. Sentences have 8 to 16 words, in lower case and without punctuation.
"""

import argparse
import gzip
import random
import re
from pathlib import Path


def sentences(files):
    for file in files:
        opened = gzip.open(file, "rt") if file.suffix == ".gz" else open(file)
        with opened as book:
            text = re.sub(r"[“”\"_]", "", re.sub(r"\s+", " ", book.read()))
        for sentence in re.split(r"(?<=[.!?]) ", text):
            words = re.sub(r"[^a-z' ]", " ", sentence.lower().replace("’", "'")).split()
            if 8 <= len(words) <= 16:
                yield words


def shuffled(words, chance):
    inner = words[1:-1]
    other = inner[:]
    while other == inner and len(set(inner)) > 1:
        chance.shuffle(other)
    return [words[0], *other, words[-1]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--dev", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--train-sentences", type=int, default=20_000)
    parser.add_argument("--dev-sentences", type=int, default=2_000)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    chance = random.Random(0)
    for name, files, count in [("train", options.train, options.train_sentences), ("dev", options.dev, options.dev_sentences)]:
        found = list(sentences(sorted(files)))
        chance.shuffle(found)
        lines = ["sentence\tlabel"]
        for i, words in enumerate(found[:count]):
            words = shuffled(words, chance) if i % 2 else words
            lines.append(f"{' '.join(words)}\t{1 - i % 2}")
        (options.output / f"order-{name}.tsv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
