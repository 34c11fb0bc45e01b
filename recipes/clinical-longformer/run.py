#!/usr/bin/env python3
"""A BERT made a Longformer, taught long texts, and asked for the class of documents of more than 512 tokens: whole, and cut at 512.

    cargo build --release -p bertha-cli
    python recipes/clinical-longformer/run.py --model models/all-MiniLM-L6-v2 --documents DIR --sentences FILE --output RUNS [--update]

DIR has a folder of text files for each of two classes, whose names begin with cv and three digits: those below --split train, the
others judge. That is how the movie reviews of Pang & Lee (2004, "polarity dataset v2.0") come: `python -m nltk.downloader
movie_reviews`, CC BY 4.0. All below --split, short ones too, are read by the masked language model.

FILE is a table of sentences of the same two classes (columns sentence and label, 0 and 1 in the order of DIR's names), SST-2's
train.tsv for one: some hundred long documents alone do not teach so small a model what praise is.
"""

import argparse
import json
import random
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
from recipe import BERTHA, put_table, run

CUT = 512
WHOLE = 4096
SENTENCES = 16_000
# Arm: what the table calls it, which model of the recipe it starts from, and the tokens that it reads of a document.
ARMS = {
    "whole": ("Longformer, taught by masked LM on long texts; whole documents", "taught", WHOLE),
    "cut": ("the same; documents cut at 512 tokens", "taught", CUT),
    "bert": ("the BERT that it was made of; documents cut at 512 tokens", "given", CUT),
    "untaught": ("Longformer as converted; whole documents", "converted", WHOLE),
}


def prepare(options, data):
    """train.tsv and dev.tsv of documents longer than the cut, texts.txt of all that may be trained on; how many, how long."""
    documents = {"train": [], "dev": []}
    texts = []
    kinds = sorted(path for path in options.documents.iterdir() if path.is_dir())
    for label, kind in enumerate(kinds):
        for path in sorted(kind.glob("cv*.txt")):
            text = " ".join(path.read_text().split())
            part = "train" if int(path.name[2:5]) < options.split else "dev"
            documents[part].append((text, label))
            if part == "train":
                texts.append(text)
    data.mkdir(parents=True, exist_ok=True)
    (data / "texts.txt").write_text("\n\n".join(texts) + "\n")
    head, *rows = options.sentences.read_text().splitlines()
    # Of phrases the longer ones, as many as are wanted.
    rows = [row for row in rows if len(row.split()) >= 8]
    random.Random(0).shuffle(rows)
    (data / "sentences.tsv").write_text("\n".join([head] + rows[:SENTENCES]) + "\n")
    found = {}
    for part, rows in documents.items():
        probe = data / "probe.txt"
        probe.write_text("\n".join(text for text, _ in rows) + "\n")
        counts = [len(line["ids"]) for line in run(options.bertha, "tokenize", "--model", options.model, "--input", probe)]
        probe.unlink()
        kept = [(text, label, count) for (text, label), count in zip(rows, counts, strict=True) if count > CUT]
        lines = ["text\tlabel"] + [f"{text}\t{label}" for text, label, _ in kept]
        (data / f"{part}.tsv").write_text("\n".join(lines) + "\n")
        found[part] = {"documents": len(kept), "tokens": statistics.mean(count for *_, count in kept)}
    return found


def teach(options, data):
    """The converted model, and the one whose masked LM went on: each once."""
    converted, raw, taught = (options.output / name for name in ("converted", "masked-lm", "taught"))
    window = ["--attention-window", options.attention_window]
    if not converted.exists():
        run(options.bertha, "convert", "--model", options.model, "--to", "longformer", "--max-length", WHOLE, *window,
            "--output", converted)
    if not taught.exists():
        words = ["--model", converted, "--data", data / "texts.txt", "--max-length", WHOLE, "--batch-tokens", 8192,
                 "--epochs", options.language_epochs, "--learning-rate", 1e-4, "--output", raw, "--resume", "-q"]
        last = run(options.bertha, "pretrain", *words, *machine(options))[-1]
        print(json.dumps({"masked_lm": last}), file=sys.stderr, flush=True)
        # The global projections, which a masked LM never reaches, begin as copies of what was learnt.
        run(options.bertha, "convert", "--model", raw, "--to", "longformer", "--output", taught)
    return {"given": options.model, "converted": converted, "taught": taught}


def know_sentences(options, data, name, model):
    """The model once it has learnt the two classes from sentences."""
    folder = options.output / f"{name}-sentences"
    if not folder.exists():
        words = ["--task", "classify", "--model", model, "--train", data / "sentences.tsv", "--max-length", 64, "--epochs", 1,
                 "--batch-size", 32, "--learning-rate", 1e-4, "--warmup-ratio", 0.1, "--output", folder, "-q"]
        run(options.bertha, "finetune", *words, *machine(options))
    return folder


def machine(options):
    return ["--precision", options.precision, "--threads", options.threads, "--save-steps", 0]


def score(options, data, models, arm, seed):
    _, name, length = ARMS[arm]
    model = know_sentences(options, data, name, models[name])
    folder = options.output / f"{arm}-{seed}"
    words = ["--task", "classify", "--model", model, "--train", data / "train.tsv",
             "--max-length", length, "--epochs", options.epochs, "--batch-size", 8, "--learning-rate", 5e-5, "--warmup-ratio", 0.1,
             "--seed", seed, "--output", folder, "--resume", "-q"]
    trained = run(options.bertha, "finetune", *words, *machine(options))[-1]
    words = ["--task", "classify", "--model", folder, "--data", data / "dev.tsv", "--max-length", length, "-q"]
    found = run(options.bertha, "evaluate", *words, "--precision", options.precision, "--threads", options.threads)[-1]
    return 100 * found["metrics"]["accuracy"], trained["seconds"]


def table(found, scores):
    train, dev = found["train"], found["dev"]
    lines = [f"{train['documents']} documents to train on, {train['tokens']:,.0f} tokens each; {dev['documents']} to judge by, "
             f"{dev['tokens']:,.0f}. Accuracy:", "", "| model | by seed | mean | seconds of training |", "| --- | --- | ---: | ---: |"]
    for arm, (name, *_) in ARMS.items():
        if values := scores.get(arm):
            by_seed = ", ".join(f"{value:.1f}" for value, _ in values)
            lines.append(f"| {name} | {by_seed} | {statistics.mean(value for value, _ in values):.2f} | "
                         f"{statistics.mean(seconds for _, seconds in values):,.0f} |")
    if "whole" in scores and "cut" in scores:
        pairs = [whole - cut for (whole, _), (cut, _) in zip(scores["whole"], scores["cut"])]
        lines += ["", f"Whole documents gain {statistics.mean(pairs):+.2f} points on the same model cut at 512 "
                      f"({', '.join(f'{gain:+.1f}' for gain in pairs)} by seed)."]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a BERT")
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--sentences", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bertha", type=Path, default=BERTHA)
    parser.add_argument("--split", type=int, default=500)
    parser.add_argument("--attention-window", type=int, default=256)
    parser.add_argument("--language-epochs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--update", action="store_true", help="write README.md's table")
    options = parser.parse_args()
    data = options.output / "data"
    found = prepare(options, data)
    models = teach(options, data)
    record = options.output / "scores.jsonl"
    scores = {}
    if record.exists():
        for line in map(json.loads, record.read_text().splitlines()):
            scores.setdefault(line["arm"], []).append((line["score"], line["seconds"]))
    for seed in range(1, options.seeds + 1):
        for arm in options.arms:
            if len(scores.get(arm, [])) >= seed:
                continue
            value, seconds = score(options, data, models, arm, seed)
            scores.setdefault(arm, []).append((value, seconds))
            with record.open("a") as file:
                file.write(json.dumps({"arm": arm, "seed": seed, "score": value, "seconds": seconds}) + "\n")
            print(f"{arm} seed {seed}: {value:.2f} in {seconds:.0f} s", file=sys.stderr, flush=True)
    text = table(found, scores)
    print(text)
    if options.update:
        put_table(HERE / "README.md", text)


if __name__ == "__main__":
    main()
