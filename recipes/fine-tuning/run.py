#!/usr/bin/env python3
"""The same fine-tuning by bertha and by PyTorch: four tasks, several seeds, one recipe.

    cargo build --release -p bertha-cli
    python recipes/fine-tuning/run.py --model models/all-MiniLM-L6-v2 --data DATA --output RUNS [--seeds 3] [--update]

DATA has sst2/train.tsv and dev.tsv (columns sentence, label), ag_news/train.tsv and dev.tsv (text, label), wnut17/train.conll
and dev.conll, squad/train.json and dev.json (SQuAD's format, every question with an answer). What both train is judged by
`bertha evaluate`, whose measures are tested against scikit-learn, seqeval and SQuAD's own script. Needs torch and transformers.
"""

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
from recipe import BERTHA, put_table, run

# Folder: task of bertha, ending of the files, measure, epochs, learning rate, longest example.
TASKS = {
    "sst2": ("classify", "tsv", "accuracy", 1, 5e-5, 64),
    "ag_news": ("classify", "tsv", "accuracy", 1, 5e-5, 64),
    "wnut17": ("tag", "conll", "f1", 5, 1e-4, 128),
    "squad": ("answer", "json", "f1", 2, 1e-4, 192),
}
STRIDE = 64
BATCH = 32
WARMUP = 0.1


def windows(task, length):
    words = ["--max-length", length]
    return words + ["--stride", STRIDE] if task == "answer" else words


def train(options, engine, name, seed, folder):
    task, ending, _, epochs, rate, length = TASKS[name]
    file = options.data / name / f"train.{ending}"
    words = ["--model", options.model, "--train", file, "--output", folder, "--epochs", epochs, "--batch-size", BATCH,
             "--learning-rate", rate, "--warmup-ratio", WARMUP, "--seed", seed, "--task", task, "--threads", options.threads]
    words += windows(task, length)
    if engine == "bertha":
        return run(options.bertha, "finetune", *words, "--save-steps", 0, "-q")[-1]
    return run(sys.executable, HERE / "peer.py", *words)[-1]


def score(options, name, folder):
    task, ending, measure, _, _, length = TASKS[name]
    file = options.data / name / f"dev.{ending}"
    words = [options.bertha, "evaluate", "--task", task, "--model", folder, "--data", file, "-q"]
    found = run(*words, *windows(task, length))[-1]
    value = found["metrics"][measure]
    # SQuAD's script counts in hundredths.
    return value if value > 1 else 100 * value


def table(scores):
    lines = ["| task | measure | bertha, by seed | mean | PyTorch, by seed | mean | bertha − PyTorch |",
             "| --- | --- | --- | ---: | --- | ---: | ---: |"]
    for name, (_, _, measure, *_) in TASKS.items():
        found = {engine: scores.get((name, engine), []) for engine in ("bertha", "torch")}
        if not all(found.values()):
            continue
        by_seed = {engine: ", ".join(f"{value:.1f}" for value, _ in values) for engine, values in found.items()}
        mean = {engine: statistics.mean(value for value, _ in values) for engine, values in found.items()}
        lines.append(f"| {name} | {measure} | {by_seed['bertha']} | {mean['bertha']:.2f} | {by_seed['torch']} | {mean['torch']:.2f} | "
                     f"{mean['bertha'] - mean['torch']:+.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bertha", type=Path, default=BERTHA)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--update", action="store_true", help="write README.md's table")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    record = options.output / "scores.jsonl"
    scores = {}
    if record.exists():
        for line in map(json.loads, record.read_text().splitlines()):
            scores.setdefault((line["task"], line["engine"]), []).append((line["score"], line["seconds"]))
    for seed in range(1, options.seeds + 1):
        for name in options.tasks:
            for engine in ("bertha", "torch"):
                if len(scores.get((name, engine), [])) >= seed:
                    continue
                folder = options.output / f"{name}-{engine}"
                shutil.rmtree(folder, ignore_errors=True)
                seconds = train(options, engine, name, seed, folder)["seconds"]
                value = score(options, name, folder)
                scores.setdefault((name, engine), []).append((value, seconds))
                with record.open("a") as file:
                    line = {"task": name, "engine": engine, "seed": seed, "score": value, "seconds": seconds}
                    file.write(json.dumps(line) + "\n")
                print(f"{name} {engine} seed {seed}: {value:.2f} in {seconds:.0f} s", file=sys.stderr, flush=True)
    text = table(scores)
    print(text)
    if options.update:
        put_table(HERE / "README.md", text)


if __name__ == "__main__":
    main()
