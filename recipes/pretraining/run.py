#!/usr/bin/env python3
"""A BERT-mini from random weights by bertha and by PyTorch, on the same blocks of text.

    cargo build --release -p bertha-cli
    python recipes/pretraining/run.py --books DIR --output RUNS [--steps 4000] [--update]

DIR has books as .txt or .txt.gz. The last twentieth of each is held out. bertha trains the
vocabulary on the rest, and both engines a model, with checkpoints on the way, which `bertha evaluate` judges on the passages
held out, with the same masks. --update writes README.md's table and picture.svg. Needs torch and transformers.
"""

import argparse
import gzip
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
from recipe import BERTHA, put_table, run

LENGTH = 128
BATCH = 8
RATE = 1e-3
WARMUP = 0.1
VOCABULARY = 8000
WORDS_OF_A_PASSAGE = 80
SENTENCES = [
    "He put on his [MASK] and went out of the house.",
    "She shook her [MASK] and said nothing.",
    "The sun was setting behind the [MASK].",
    "I have not [MASK] him for many years.",
    "\" What do you [MASK]? \" he asked.",
    "They sat down by the [MASK] to warm themselves.",
]


def write_texts(options):
    """train.txt: the books, without blank lines inside; dev.txt: a passage a line."""
    train, dev = [], []
    for path in sorted(options.books.glob("*.txt*")):
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = [" ".join(line.split()) for line in raw.decode().splitlines()]
        lines = [line for line in lines if line]
        kept = len(lines) * 19 // 20
        train.append("\n".join(lines[:kept]))
        passage = []
        for line in lines[kept:]:
            passage += line.split()
            if len(passage) >= WORDS_OF_A_PASSAGE:
                dev.append(" ".join(passage))
                passage = []
    (options.output / "train.txt").write_text("\n\n".join(train) + "\n")
    (options.output / "dev.txt").write_text("\n".join(dev) + "\n")


def write_config(options):
    config = dict(
        model_type="bert", architectures=["BertForMaskedLM"], vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=4,
        num_attention_heads=4, intermediate_size=1024, hidden_act="gelu", hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, max_position_embeddings=LENGTH, type_vocab_size=2, initializer_range=0.02,
        layer_norm_eps=1e-12, pad_token_id=0,
    )
    (options.output / "config.json").write_text(json.dumps(config, indent=2))


def train(options, engine):
    folder = options.output / engine
    done = options.output / f"{engine}.json"
    if not done.exists():
        words = ["--config", options.output / "config.json", "--tokenizer", options.output / "tokenizer", "--output", folder,
                 "--data", options.output / "train.txt", "--max-length", LENGTH, "--batch-size", BATCH, "--steps", options.steps,
                 "--learning-rate", RATE, "--warmup-ratio", WARMUP, "--save-steps", options.steps // 10,
                 "--threads", options.threads, "--seed", 1]
        if engine == "bertha":
            said = run(options.bertha, "pretrain", *words, "--save-total-limit", 10, "--resume", "-q")
        else:
            said = run(sys.executable, HERE / "peer.py", *words)
        done.write_text(json.dumps(said[-1]))
    return json.loads(done.read_text())


def curve(options, engine):
    """Updates and loss on what was held out, of every checkpoint."""
    kept = options.output / f"{engine}-curve.json"
    if not kept.exists():
        points = []
        for folder in (options.output / engine / "checkpoints").iterdir():
            model = folder / "model" if (folder / "model").exists() else folder
            found, = run(options.bertha, "evaluate", "--task", "masked-lm", "--model", model, "--data", options.output / "dev.txt",
                         "--max-length", LENGTH, "-q")
            points.append((int(folder.name.split("-")[-1]), found["metrics"]["loss"]))
        kept.write_text(json.dumps(sorted(points)))
    return json.loads(kept.read_text())


def table(curves, tokens_of_an_update):
    other = dict(curves["torch"])
    lines = ["| updates | tokens, millions | bertha | PyTorch | difference |", "| ---: | ---: | ---: | ---: | ---: |"]
    for step, loss in curves["bertha"]:
        tokens = step * tokens_of_an_update / 1e6
        lines.append(f"| {step:,} | {tokens:.1f} | {loss:.3f} | {other[step]:.3f} | {loss - other[step]:+.3f} |")
    return "\n".join(lines)


def answers(options):
    lines = ["| | bertha's model | PyTorch's |", "| --- | --- | --- |"]
    said = {engine: run(options.bertha, "fill-mask", "--model", options.output / engine, "--top-k", 4, *SENTENCES, "-q")
            for engine in ("bertha", "torch")}
    for i, sentence in enumerate(SENTENCES):
        guesses = [", ".join(guess["token_str"] for guess in said[engine][i]["masks"][0]) for engine in said]
        lines.append(f"| {sentence} | {guesses[0]} | {guesses[1]} |")
    return "\n".join(lines)


def picture(curves):
    width, height, left, top, bottom = 640, 360, 60, 20, 50
    last = max(step for points in curves.values() for step, _ in points)
    losses = [loss for points in curves.values() for _, loss in points]
    low, high = int(min(losses) * 2) / 2, int(max(losses) * 2 + 1) / 2
    x = lambda step: left + (width - left - 30) * step / last
    y = lambda loss: top + (height - top - bottom) * (high - loss) / (high - low)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">'
             f'<rect width="{width}" height="{height}" fill="white"/>']
    for half in range(round(2 * low), round(2 * high) + 1):
        at = y(half / 2)
        parts.append(f'<line x1="{left}" x2="{width - 30}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>'
                     f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end" fill="#555">{half / 2:.1f}</text>')
    for step in range(0, last + 1, last // 4):
        parts.append(f'<text x="{x(step):.1f}" y="{height - 28}" text-anchor="middle" fill="#555">{step:,}</text>')
    for i, (engine, name, colour, dash) in enumerate((("bertha", "bertha", "#1b4965", ""), ("torch", "PyTorch", "#d1495b", "6 4"))):
        points = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in curves[engine])
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"/>'
                     f'<line x1="470" x2="510" y1="{40 + 22 * i}" y2="{40 + 22 * i}" stroke="{colour}" stroke-width="2.5" '
                     f'stroke-dasharray="{dash}"/><text x="518" y="{44 + 22 * i}">{name}</text>')
    parts.append(f'<text x="{(left + width) / 2}" y="{height - 8}" text-anchor="middle" fill="#555">updates</text>'
                 f'<text x="{left}" y="14" fill="#555">masked-LM loss on what was held out, nats</text></svg>')
    return "\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bertha", type=Path, default=BERTHA)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engines", nargs="+", choices=["bertha", "torch"], default=["bertha", "torch"], help="train these now")
    parser.add_argument("--update", action="store_true", help="write README.md's table and picture.svg")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if not (options.output / "tokenizer").exists():
        write_texts(options)
        write_config(options)
        run(options.bertha, "train-tokenizer", "--type", "wordpiece", "--vocab-size", VOCABULARY, "--data",
            options.output / "train.txt", "--output", options.output / "tokenizer", "-q")
    said = {engine: train(options, engine) for engine in options.engines}
    print(json.dumps(said), file=sys.stderr, flush=True)
    if len(options.engines) < 2:
        return
    curves = {engine: curve(options, engine) for engine in ("bertha", "torch")}
    tokens_of_an_update = said["bertha"]["tokens"] / said["bertha"]["step"]
    text = f"{table(curves, tokens_of_an_update)}\n\n{answers(options)}"
    print(text)
    if options.update:
        put_table(HERE / "README.md", text)
        (HERE / "picture.svg").write_text(picture(curves))


if __name__ == "__main__":
    main()
