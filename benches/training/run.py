"""An update of a masked LM, bertha beside PyTorch with transformers: forward pass, backward pass, clipping and AdamW, random
weights and tokens, dropout 0.1, 15 % of the tokens to be guessed; one process a measurement, the engines in turn.

    cargo build --release --features train --example time_training
    python benches/training/run.py [--seconds 10] [--rounds 2] [--cases NAME ...] [--update]

PyTorch at its best: logits of the masked positions alone, fused AdamW, SDPA attention, and glibc told to keep freed memory;
bf16 by torch.autocast. Ragged batches it pads to the longest. --update writes the table into docs/benchmarks.md. Needs torch
and transformers.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE = dict(vocab_size=30522, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
MINI = dict(vocab_size=30522, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024)
RAGGED = ",".join(str(random.Random(1).randint(8, 128)) for _ in range(32))
CASES = {
    "BERT-mini 32x128": (MINI, "32x128"),
    "BERT-mini ragged": (MINI, RAGGED),
    "BERT-base 8x128": (BASE, "8x128"),
    "BERT-base 32x128": (BASE, "32x128"),
}
# Freed memory goes back to the system at every update otherwise, and is zeroed by it again.
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(1 << 33), "MALLOC_TRIM_THRESHOLD_": str(1 << 34), "MALLOC_TOP_PAD_": str(1 << 26)}
TORCH = """
import json, sys, time
import torch, transformers
config, lengths, precision, budget, threads = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], float(sys.argv[4]), int(sys.argv[5])
torch.set_num_threads(threads)
torch.manual_seed(1)
model = transformers.BertForMaskedLM(transformers.BertConfig(**json.loads(config)))
model.train()
plain = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
decayed = [p for n, p in model.named_parameters() if not (n.endswith("bias") or "LayerNorm" in n)]
optimizer = torch.optim.AdamW([dict(params=decayed, weight_decay=0.01), dict(params=plain, weight_decay=0.0)], lr=1e-4, fused=True)
width = max(lengths)
ids = torch.randint(5, model.config.vocab_size, (len(lengths), width))
mask = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long()
tokens = int(mask.sum())
rows = mask.reshape(-1).nonzero()[:, 0][(torch.arange(tokens) * 3 % 20 < 3)]
labels = torch.randint(5, model.config.vocab_size, (len(rows),))
inputs = dict(input_ids=ids)
if min(lengths) < width:
    inputs["attention_mask"] = mask
updates, start = [], time.monotonic()
# The first make buffers; where an update takes minutes there are but two.
enough = lambda seconds: len(updates) >= 5 and seconds > budget or len(updates) >= 2 and seconds > 6 * budget
while not enough(time.monotonic() - start):
    a = time.monotonic()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        hidden = model.bert(**inputs).last_hidden_state.reshape(-1, model.config.hidden_size)
        logits = model.cls(hidden[rows])
    loss = torch.nn.functional.cross_entropy(logits.float(), labels)
    b = time.monotonic()
    loss.backward()
    c = time.monotonic()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    d = time.monotonic()
    updates.append((d - a, b - a, c - b, d - c))
updates = updates[2:] if len(updates) >= 5 else updates[1:]
middle = lambda part: sorted(update[part] for update in updates)[len(updates) // 2]
mib = int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) // 1024
print(json.dumps(dict(seconds=middle(0), forward=middle(1), backward=middle(2), optimizer=middle(3), tokens=tokens,
                      updates=len(updates), mib=mib)))
"""


def sizes(lengths):
    if "x" in lengths:
        count, length = map(int, lengths.split("x"))
        return [length] * count
    return [int(length) for length in lengths.split(",")]


def operations(config, lengths):
    """Of the matrix products of an update, two for a multiply-add, three passes."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    tokens = sum(lengths)
    layer = tokens * (4 * hidden * hidden + 2 * hidden * inner) + sum(2 * n * n * hidden for n in lengths)
    masked = -(-tokens * 3 // 20)
    head = masked * (hidden * hidden + hidden * config["vocab_size"])
    return 3 * 2 * (layer * config["num_hidden_layers"] + head)


def measure(engine, precision, config, lengths, seconds, threads, folder):
    if engine == "bertha":
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(dict(config, model_type="bert", type_vocab_size=2, max_position_embeddings=512)))
        command = [ROOT / "target/release/examples/time_training", file, lengths, precision, str(seconds)]
    else:
        command = [sys.executable, "-c", TORCH, json.dumps(config), json.dumps(sizes(lengths)), precision, str(seconds), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, **KEEP))
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def middle(runs, key):
    return statistics.median(run[key] for run in runs)


def table(found):
    lines = [
        "| case | engine | tokens/s | forward, backward, optimizer (ms) | % of peak | MiB | bertha ÷ PyTorch in its best precision |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, engines in found.items():
        config, lengths = CASES[name]
        work = operations(config, sizes(lengths))
        peak = max(run["peak_flops"] for run in engines["bertha", "f32"])
        best = min(middle(runs, "seconds") for (engine, _), runs in engines.items() if engine == "torch")
        for (engine, precision), runs in engines.items():
            seconds = middle(runs, "seconds")
            parts = ", ".join(f"{1000 * middle(runs, part):,.0f}" for part in ("forward", "backward", "optimizer"))
            ratio = f"**{best / seconds:.2f}**" if engine == "bertha" else ""
            lines.append(
                f"| {name} | {'bertha' if engine == 'bertha' else 'PyTorch'} {precision} | {runs[0]['tokens'] / seconds:,.0f} | "
                f"{parts} | {100 * work / seconds / peak:.0f} % | {max(run['mib'] for run in runs):,} | {ratio} |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch; bertha takes one for each physical core")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    # Without such instructions an update of BERT-base by PyTorch in bf16 takes minutes.
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    multiplies_bf16 = "avx512_bf16" in flags or "amx_bf16" in flags
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.cases:
            config, lengths = CASES[name]
            engines = found.setdefault(name, {})
            for _ in range(options.rounds):
                for engine, precision in [("bertha", "f32"), ("torch", "f32"), ("bertha", "bf16"), ("torch", "bf16")]:
                    if (engine, precision) == ("torch", "bf16") and config is BASE and not multiplies_bf16:
                        continue
                    run = measure(engine, precision, config, lengths, options.seconds, options.threads, folder)
                    engines.setdefault((engine, precision), []).append(run)
                    print(f"{name}, {engine} {precision}: {run['tokens'] / run['seconds']:,.0f} tokens/s", file=sys.stderr, flush=True)
    text = table(found)
    print(text)
    if options.update:
        page = ROOT / "docs/benchmarks.md"
        before, rest = page.read_text().split("<!-- training -->")
        _, after = rest.split("<!-- end of training -->")
        page.write_text(f"{before}<!-- training -->\n{text}\n<!-- end of training -->{after}")


if __name__ == "__main__":
    main()
