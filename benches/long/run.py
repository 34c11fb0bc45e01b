"""Time and memory of long texts: Longformer, BigBird, ModernBERT and BERT in the shapes of their base models, random
weights, f32 and bf16, one text of 512 to 16,384 tokens; bertha beside PyTorch with transformers, one process a measurement, the
engines in turn.

    cargo build --release --example time_forward
    python benches/long/run.py [--longest 16384] [--models longformer bigbird] [--update]

--update writes the table and the pictures into docs/. Needs torch, transformers and, for the pictures, matplotlib.
"""

import argparse
import datetime
import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = [512, 1024, 2048, 4096, 8192, 16384]
PRECISIONS = ["f32", "bf16"]
SHAPES = {
    "longformer": ("LongformerModel", dict(vocab_size=50265, attention_window=512, type_vocab_size=1, layer_norm_eps=1e-5, max_position_embeddings=16386)),
    "bigbird": ("BigBirdModel", dict(vocab_size=50358, max_position_embeddings=16384)),
    "modernbert": ("ModernBertModel", dict(max_position_embeddings=16384)),
    "bert": ("BertModel", dict(max_position_embeddings=16384)),
}
TORCH = """
import json, sys, time
import torch, transformers
cls, folder, tokens, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
dtype = dict(f32=torch.float32, bf16=torch.bfloat16)[sys.argv[5]]
transformers.utils.logging.set_verbosity_error()
model = getattr(transformers, cls).from_pretrained(folder, dtype=dtype).eval()
ids = torch.randint(5, model.config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(1))
memory = lambda key: int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1])
before, seconds = memory("VmRSS"), []
with torch.inference_mode():
    for _ in range(rounds):
        start = time.perf_counter()
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
        seconds.append(time.perf_counter() - start)
seconds = sorted(seconds)[len(seconds) // 2]
print(json.dumps(dict(tokens=tokens, seconds=round(seconds, 4), tokens_per_second=round(tokens / seconds, 1),
                      mib_beside_weights=(memory("VmHWM") - before) // 1024)))
"""


def make(folder, cls, config):
    """Random weights: how fast they run does not depend on their values."""
    import torch
    import transformers

    torch.manual_seed(0)
    cls = getattr(transformers, cls)
    cls(cls.config_class(**config)).save_pretrained(folder)


def measure(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:200] if done.stderr else f"exit {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(rows):
    lines = [
        "| model | precision | tokens | bertha tok/s | PyTorch tok/s | bertha ÷ PyTorch | bertha MiB | PyTorch MiB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        ours, theirs = row["bertha"], row["torch"]
        def number(found, key):
            return f"{found[key]:,.0f}" if key in found else "–"
        ratio = "–"
        if "seconds" in ours and "seconds" in theirs:
            ratio = f"**{theirs['seconds'] / ours['seconds']:.2f}**"
        lines.append(
            f"| {row['model']} | {row['precision']} | {row['tokens']:,} | {number(ours, 'tokens_per_second')} | "
            f"{number(theirs, 'tokens_per_second')} | {ratio} | {number(ours, 'mib_beside_weights')} | "
            f"{number(theirs, 'mib_beside_weights')} |"
        )
    return "\n".join(lines)


def draw(rows, path):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bertha"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 8), sharex=True)
    for pair, precision in zip(axes, PRECISIONS):
        chosen = [row for row in rows if row["precision"] == precision]
        for axis, key, label in zip(pair, ["seconds", "mib_beside_weights"], ["seconds", "MiB beside the weights"]):
            for i, model in enumerate(SHAPES):
                for engine, style in [("bertha", "-o"), ("torch", "--x")]:
                    points = [(r["tokens"], r[engine][key]) for r in chosen if r["model"] == model and key in r[engine]]
                    if points:
                        name = "bertha" if engine == "bertha" else "PyTorch"
                        axis.plot(*zip(*points), style, color=f"C{i}", markersize=4, label=f"{model}, {name}")
            axis.set_title(precision)
            axis.set_xlabel("tokens")
            axis.set_ylabel(label)
            # What PyTorch takes would flatten all else.
            ours = [r["bertha"].get(key, 0) for r in chosen]
            axis.set_ylim(0, 3 * max(ours, default=1))
        pair[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def machine():
    import torch
    import transformers

    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return (
        f"{model.group(1) if model else platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, {datetime.date.today()}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bertha", type=Path, default=ROOT / "target/release/examples/time_forward")
    parser.add_argument("--longest", type=int, default=LENGTHS[-1])
    parser.add_argument("--longest-dense", type=int, default=8192, help="of what is dense: BERT, and PyTorch's ModernBERT")
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            cls, config = SHAPES[model]
            make(folder, cls, config)
            for precision in PRECISIONS:
                for tokens in LENGTHS:
                    dense = tokens > options.longest_dense
                    if tokens > options.longest or (dense and model == "bert"):
                        continue
                    rounds = "3" if tokens <= 2048 else "1"
                    row = {"model": model, "precision": precision, "tokens": tokens}
                    row["bertha"] = measure([options.bertha, folder, str(tokens), rounds, "1", precision])
                    row["torch"] = {}
                    if not (dense and model == "modernbert"):
                        row["torch"] = measure([sys.executable, "-c", TORCH, cls, folder, str(tokens), rounds, precision])
                    print(json.dumps(row), file=sys.stderr, flush=True)
                    rows.append(row)
    print(table(rows))
    if options.update:
        draw(rows, ROOT / "docs/long-documents.svg")
        page = ROOT / "docs/long-documents.md"
        text = page.read_text()
        start, end = "<!-- long: made by benches/long/run.py --update -->", "<!-- end of long -->"
        before, rest = text.split(start)
        after = rest.split(end)[1]
        picture = "![Seconds and memory by the length of the text](long-documents.svg)"
        page.write_text(f"{before}{start}\n\n{machine()}\n\n{table(rows)}\n\n{picture}\n\n{end}{after}")


if __name__ == "__main__":
    main()
