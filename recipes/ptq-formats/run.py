#!/usr/bin/env python3
"""A fine-tuned model in every format of bertha: size, error of the weights, and accuracy, by group size and method.

    cargo build --release -p bertha-cli
    python recipes/ptq-formats/run.py --model MODEL --dev dev.tsv --calibrate texts.txt --output RUNS [--update]

MODEL was fine-tuned by `bertha finetune --task classify`. Writes the table into README.md beside this file (with --update)
and picture.svg. Needs Python alone.
"""

import argparse
import json
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CASES = [("int8", None, "minmax", False)]
CASES += [(name, group, "minmax", False) for name in ("nf4", "fp4", "e2m1", "int4", "uint4") for group in (64, 128, 256)]
CASES += [("nf4", 64, "minmax", True), ("fp4", 64, "minmax", True)]
CASES += [("int4", 64, method, False) for method in ("mse", "percentile", "gptq", "awq")]
CASES += [("int3", 64, method, False) for method in ("minmax", "mse", "gptq", "awq")]
CASES += [("uint2", 64, method, False) for method in ("minmax", "mse", "gptq", "awq")]


def bertha(options, *words):
    command = [str(word) for word in (options.bertha, *words, "-q")]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{made.stderr}")
    return [json.loads(line) for line in made.stdout.splitlines()]


def accuracy(options, model):
    lines = bertha(options, "evaluate", "--task", "classify", "--model", model, "--data", options.dev,
                   "--max-length", options.max_length)
    found = lines[-1]
    return found["metrics"][options.metric]


def picture(rows, reference):
    width, height, left, bottom = 640, 380, 60, 330
    low = min(row["accuracy"] for row in rows) - 1
    high = max(max(row["accuracy"] for row in rows), reference) + 1
    most = max(row["error"] for row in rows) * 1.05
    x = lambda error: left + (width - left - 20) * error / most
    y = lambda value: bottom - (bottom - 20) * (value - low) / (high - low)
    colours = {"int8": "#1b4965", "int4": "#ca6702", "uint4": "#ee9b00", "nf4": "#2a9d8f", "fp4": "#9b2226",
               "e2m1": "#6a4c93", "int3": "#888888", "uint2": "#bbbbbb"}
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
             f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>'
             f'<line x1="{left}" y1="{bottom}" x2="{width - 20}" y2="{bottom}" stroke="#333"/>'
             f'<line x1="{left}" y1="20" x2="{left}" y2="{bottom}" stroke="#333"/>'
             f'<line x1="{left}" y1="{y(reference):.1f}" x2="{width - 20}" y2="{y(reference):.1f}" stroke="#333" '
             f'stroke-dasharray="4 3"/><text x="{width - 20}" y="{y(reference) - 5:.1f}" text-anchor="end">f32</text>']
    for tick in range(int(low) + 1, int(high) + 1, max(1, int(high - low) // 6)):
        parts.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}</text>')
    for i in range(0, 6):
        parts.append(f'<text x="{x(most * i / 5):.1f}" y="{bottom + 16}" text-anchor="middle">{most * i / 5:.2f}</text>')
    for row in rows:
        parts.append(f'<circle cx="{x(row["error"]):.1f}" cy="{y(row["accuracy"]):.1f}" r="5" fill-opacity="0.8" '
                     f'fill="{colours[row["format"]]}"/>')
    for i, (name, colour) in enumerate(colours.items()):
        parts.append(f'<circle cx="{left + 20 + 70 * i}" cy="{height - 14}" r="5" fill="{colour}"/>'
                     f'<text x="{left + 28 + 70 * i}" y="{height - 10}">{name}</text>')
    parts.append(f'<text x="{left + 6}" y="14">accuracy on dev, %, by the mean relative error of the layers\' outputs</text></svg>')
    return "\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--calibrate", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bertha", default=ROOT / "target/release/bertha")
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--metric", default="accuracy")
    parser.add_argument("--update", action="store_true", help="write README.md's table and picture.svg")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    reference = 100 * accuracy(options, options.model)
    print("f32", reference, flush=True)
    rows = []
    for name, group, method, double in CASES:
        folder = options.output / "model"
        shutil.rmtree(folder, ignore_errors=True)
        words = ["quantize", "--model", options.model, "--to", name, "--method", method, "--calibrate",
                 options.calibrate, "--calibration-length", options.max_length, "--output", folder]
        words += ["--group-size", group] if group else []
        words += ["--double-quantization"] if double else []
        *layers, summary = bertha(options, *words)
        stored = sum(layer["bytes"] for layer in layers)
        values = sum(layer["shape"][0] * layer["shape"][1] for layer in layers)
        rows.append({
            "format": name,
            "group": group or "row",
            "method": method + (", double" if double else ""),
            "bits": 8 * stored / values,
            "weights": sum(layer["weight_error"] for layer in layers) / len(layers),
            "error": sum(layer["output_error"] for layer in layers) / len(layers),
            "accuracy": 100 * accuracy(options, folder),
        })
        print(rows[-1], flush=True)
    shutil.rmtree(options.output / "model", ignore_errors=True)
    lines = ["| format | group | method | bits a weight | error of weights | error of outputs | accuracy | less than f32 |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |",
             f"| f32 | | | 32 | | | {reference:.2f} | |"]
    for row in rows:
        lines.append(f"| {row['format']} | {row['group']} | {row['method']} | {row['bits']:.2f} | {row['weights']:.3f} | "
                     f"{row['error']:.3f} | {row['accuracy']:.2f} | {reference - row['accuracy']:.2f} |")
    text = "\n".join(lines)
    print(text)
    if options.update:
        readme = HERE / "README.md"
        before, rest = readme.read_text().split("<!-- table -->")
        _, after = rest.split("<!-- end of table -->")
        readme.write_text(f"{before}<!-- table -->\n{text}\n<!-- end of table -->{after}")
        (HERE / "picture.svg").write_text(picture(rows, reference))


if __name__ == "__main__":
    main()
