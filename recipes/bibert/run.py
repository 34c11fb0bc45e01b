#!/usr/bin/env python3
"""BiBERT's two parts, each alone and both, against naive binarization (Qin et al. 2022, table 1 and its ablation), BiT and BinaryBERT.

    cargo build --release -p bertha-cli
    python recipes/bibert/run.py --model MODEL --train train.tsv --dev dev.tsv --output RUNS [--update]

MODEL is a BERT with few layers, train.tsv and dev.tsv have columns `sentence` (or sentence1 and sentence2) and `label`.
Fine-tunes a teacher, binarizes it in six ways with three seeds each, and writes the dev accuracies into README.md beside
this file (with --update) and into picture.svg. A run that is in RUNS already is not made again. Needs Python alone.
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Weights that are nearly floats learn at a tenth of the rate that signs need.
RATES = {"binarybert": 0.1}
ARMS = [
    ("naive", "naive", "false"),
    ("naive + direction matching", "naive", "true"),
    ("Bi-Attention alone", "bibert", "false"),
    ("BiBERT", "bibert", "true"),
    ("BiT", "bit", None),
    ("BinaryBERT, inputs of 8 bits", "binarybert", None),
]


def bertha(options, *words):
    command = [options.bertha, *words, "--threads", options.threads, "-q"]
    made = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if made.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{made.stderr}")
    return [json.loads(line) for line in made.stdout.splitlines()]


def data(options):
    columns = []
    if options.pair:
        columns = ["--text-column", "sentence1", "--text-pair-column", "sentence2"]
    return ["--task", options.task, "--train", options.train, "--dev", options.dev, *columns,
            "--max-length", options.max_length, "--save-steps", 0]


def run(options, folder, *words):
    kept = folder / "result.json"
    if kept.exists():
        return json.loads(kept.read_text())
    lines = bertha(options, *words, *data(options), "--output", folder, "--resume")
    # The last line of a binarized model is its size, those before are of its steps.
    learned = lines if len(lines) == 1 else lines[:-1]
    seconds = sum(line["seconds"] for line in learned)
    result = {"evaluation": learned[-1]["evaluation"], "seconds": seconds, **lines[-1]}
    kept.write_text(json.dumps(result))
    print(folder.name, result["evaluation"], flush=True)
    return result


def table(rows, teacher, options):
    lines = ["| | seeds | mean | standard deviation |", "| --- | --- | --- | --- |"]
    lines.append(f"| teacher, f32 | {teacher:.1f} | {teacher:.1f} | |")
    for name, values in rows:
        each = ", ".join(f"{value:.1f}" for value in values)
        spread = f"{statistics.stdev(values):.1f}" if len(values) > 1 else ""
        lines.append(f"| {name} | {each} | {statistics.mean(values):.1f} | {spread} |")
    return "\n".join(lines)


def picture(rows, teacher, metric):
    values = [value for _, all_of in rows for value in all_of] + [teacher]
    low = 5 * (int(min(values)) // 5)
    high = 5 * (int(max(values)) // 5 + 1)
    width, height, left, top = 640, 60 + 48 * len(rows), 220, 20
    at = lambda value: left + (width - left - 30) * (value - low) / (high - low)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
             f'font-size="13"><rect width="{width}" height="{height}" fill="white"/>']
    for tick in range(low, high + 1, 5):
        parts.append(f'<line x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="{top}" y2="{height - 36}" stroke="#ddd"/>'
                     f'<text x="{at(tick):.1f}" y="{height - 20}" text-anchor="middle" fill="#555">{tick}</text>')
    parts.append(f'<line x1="{at(teacher):.1f}" x2="{at(teacher):.1f}" y1="{top}" y2="{height - 36}" stroke="#333" '
                 f'stroke-dasharray="4 3"/><text x="{at(teacher) - 4:.1f}" y="{top + 10}" text-anchor="end" '
                 f'fill="#333">teacher</text>')
    for i, (name, all_of) in enumerate(rows):
        y = top + 30 + 44 * i
        mean = statistics.mean(all_of)
        parts.append(f'<text x="{left - 12}" y="{y + 5}" text-anchor="end">{name}</text>'
                     f'<rect x="{left}" y="{y - 9}" width="{at(mean) - left:.1f}" height="18" fill="#7aa6c2"/>')
        for value in all_of:
            parts.append(f'<circle cx="{at(value):.1f}" cy="{y}" r="4" fill="#1b4965"/>')
    parts.append(f'<text x="{width - 30}" y="{height - 4}" text-anchor="end" fill="#555">{metric} on dev, %</text></svg>')
    return "\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bertha", default=ROOT / "target/release/bertha")
    parser.add_argument("--task", default="classify")
    parser.add_argument("--metric", default="accuracy")
    parser.add_argument("--pair", action="store_true")
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--teacher-epochs", type=int, default=3)
    parser.add_argument("--teacher-learning-rate", type=float, default=5e-5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--update", action="store_true", help="write README.md's table and picture.svg")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    teacher = options.output / "teacher"
    found = run(options, teacher, "finetune", "--model", options.model, "--epochs", options.teacher_epochs,
                "--learning-rate", options.teacher_learning_rate)
    teacher_score = 100 * found["evaluation"][options.metric]
    rows = {name: [] for name, _, _ in ARMS}
    # Seed by seed, so that what is there at any time compares.
    for seed in range(1, options.seeds + 1):
        for name, method, matching in ARMS:
            folder = options.output / "-".join(filter(None, (method, matching, str(seed))))
            directions = ["--direction-matching", matching] if matching else []
            result = run(options, folder, "binarize", "--teacher", teacher, "--method", method,
                         *directions, "--steps", options.steps, "--batch-size", 32,
                         "--learning-rate", RATES.get(method, 1) * options.learning_rate, "--eval-steps", options.steps // 2,
                         "--seed", seed)
            rows[name].append(100 * result["evaluation"][options.metric])
    text = table(rows.items(), teacher_score, options)
    print(text)
    if options.update:
        readme = HERE / "README.md"
        before, rest = readme.read_text().split("<!-- table -->")
        _, after = rest.split("<!-- end of table -->")
        readme.write_text(f"{before}<!-- table -->\n{text}\n<!-- end of table -->{after}")
        (HERE / "picture.svg").write_text(picture(list(rows.items()), teacher_score, options.metric))


if __name__ == "__main__":
    main()
