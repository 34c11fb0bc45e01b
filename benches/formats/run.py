"""BERT-base with random weights by the format of its linear layers: tokens a second, and how many times faster than in f32.

    cargo build --release -p bertha-cli
    cargo build --release -p bertha-compress --example random_bert
    python benches/formats/run.py [--rounds 2] [--threads 2] [--isa avx512 avx2] [--update]

All formats take turns, round by round, under each instruction set; means of the rounds. --update writes the tables into
docs/quantization.md. BERT-base takes some gigabytes of disk in a temporary folder, or in --folder DIR, where it is kept.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release"
# What a column is: the folder's format, and the precision of what stays float.
FORMATS = {
    "f32": ("f32", "f32"),
    "bf16": ("f32", "bf16"),
    "int8": ("int8", "f32"),
    "int4": ("int4", "f32"),
    "int4, bf16": ("int4", "bf16"),
    "nf4": ("nf4", "f32"),
    "sign": ("sign", "f32"),
    "binary": ("binary", "f32"),
}
SHAPES = ["1x16", "1x128", "32x128"]


def make(folder, name):
    path = folder / name
    if not (path / "model.safetensors").exists():
        if name in ("f32", "binary"):
            command = [TARGET / "examples/random_bert", path, name]
        else:
            command = [TARGET / "bertha", "quantize", "--model", make(folder, "f32"), "--to", name, "--output", path]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return path


def measure(path, precision, isa, options):
    command = [
        *(TARGET / "bertha", "bench", "--model", path, "--precision", precision, "--shapes", ",".join(SHAPES)),
        *("--threads", str(options.threads), "--seconds", str(options.seconds), "--format", "json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, BERTHA_ISA=isa))
    if done.returncode:
        sys.exit(done.stderr)
    return {line["shape"]: line["tokens_per_second"] for line in json.loads(done.stdout)["lines"]}


def table(found):
    lines = ["| whole model, tokens/s | " + " | ".join(found) + " |", "| --- |" + " ---: |" * len(found)]
    for shape in SHAPES:
        rates = {name: statistics.mean(run[shape] for run in runs) for name, runs in found.items()}
        cells = [f"{rate:,.0f} ({rate / rates['f32']:.2f})" for rate in rates.values()]
        lines.append(f"| {shape} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each shape")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--isa", nargs="+", default=["avx512", "avx2"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    parts = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        paths = {name: make(folder, name) for name in dict.fromkeys(name for name, _ in FORMATS.values())}
        for isa in options.isa:
            found = {name: [] for name in FORMATS}
            for _ in range(options.rounds):
                for name, (folder_name, precision) in FORMATS.items():
                    found[name].append(measure(paths[folder_name], precision, isa, options))
                    print(f"{isa}, {name}: {found[name][-1]}", file=sys.stderr, flush=True)
            parts.append(f"`BERTHA_ISA={isa}`, {options.threads} threads:\n\n{table(found)}")
    text = "\n\n".join(parts)
    print(text)
    if options.update:
        page = ROOT / "docs/quantization.md"
        before, rest = page.read_text().split("<!-- formats -->")
        _, after = rest.split("<!-- end of formats -->")
        page.write_text(f"{before}<!-- formats -->\n{text}\n<!-- end of formats -->{after}")


if __name__ == "__main__":
    main()
