"""Measures cold starts: from the start of the process to its first embedding of all-MiniLM-L6-v2, the
files in the page cache; and the peak of resident memory beside the size of the model file.

    python benches/peers/start.py                   # the model comes from scripts/fetch-model.sh

bertha's command line starts `--starts` times. Where sentence-transformers is installed, a Python that
does the same starts in between, less often.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import document
import machine
import workers

TEXT = "A cat sits on the mat."
SENTENCES = workers.ROOT / "tests" / "golden" / "minilm" / "sentences.txt"
# One start of sentence-transformers after so many of bertha.
SPARSE = 4
IN_PYTHON = """
import sys
from sentence_transformers import SentenceTransformer
vector = SentenceTransformer(sys.argv[1], device="cpu").encode(sys.argv[2])
print(vector.tolist(), flush=True)
"""


class Start:
    """One run of a command: seconds to its first line, seconds to its end, peak resident bytes."""

    def __init__(self, command):
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        line = process.stdout.readline()
        self.first = time.perf_counter() - begin
        # To the end, so that a full pipe does not hold the process up.
        while process.stdout.read(1 << 20):
            pass
        # The child's peak counts from this process's size at the fork: a floor of a few MB.
        _, status, usage = os.wait4(process.pid, 0)
        self.whole = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode != 0 or not line.strip():
            sys.exit(f"{' '.join(command)}\nfailed with exit code {process.returncode}")
        # Kilobytes on Linux, bytes on macOS.
        self.peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = workers.ROOT / "models" / "all-MiniLM-L6-v2"
    parser.add_argument("--model", type=Path, default=default, help="%(default)s")
    parser.add_argument("--starts", type=int, default=20, help="of bertha (%(default)s)")
    parser.add_argument(
        "--update",
        metavar="SECTION",
        help="write the table into this section of docs/benchmarks.md instead of printing it",
    )
    arguments = parser.parse_args()
    if arguments.starts < 1:
        parser.error("--starts is at least 1")
    if not (arguments.model / "model.safetensors").is_file():
        parser.error(f"no model.safetensors in {arguments.model}: run scripts/fetch-model.sh")
    return arguments


def into_page_cache(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass


def row(name, starts, size, seconds):
    times = sorted(seconds(start) * 1e3 for start in starts)
    peak = statistics.median(start.peak for start in starts)
    cells = [
        name,
        str(len(starts)),
        f"**{statistics.median(times):,.0f} ms**",
        f"{times[0]:,.0f} to {times[-1]:,.0f} ms",
        f"{peak / 2**20:,.0f} MiB",
        f"**{peak / size:.2f}**",
    ]
    return "| " + " | ".join(cells) + " |"


def main():
    arguments = parse_arguments()
    model = str(arguments.model)
    binary = workers.command_line()
    load = os.getloadavg()[0]
    into_page_cache(arguments.model)

    one = [binary, "embed", "--model", model, TEXT]
    many = [binary, "embed", "--model", model, "--input", str(SENTENCES)]
    python = [sys.executable, "-c", IN_PYTHON, model, TEXT]
    compare = importlib.util.find_spec("sentence_transformers") is not None
    watch = machine.Watch()
    # Not counted: the first of each brings libraries into the page cache.
    Start(one)
    if compare:
        Start(python)
    ours, peers = [], []
    for i in range(arguments.starts):
        ours.append(Start(one))
        if compare and i % SPARSE == SPARSE - 1:
            peers.append(Start(python))
        print(f"start {i + 1} of {arguments.starts}", file=sys.stderr, flush=True)
    whole = [Start(many) for _ in range(3)]
    _, others = watch.read()

    size = (arguments.model / "model.safetensors").stat().st_size
    count = len(SENTENCES.read_text().splitlines())
    lines = [
        "| | runs | time, median | from, to | peak memory | ÷ model file |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        row("bertha, to the first embedding", ours, size, lambda start: start.first),
    ]
    if peers:
        name = "sentence-transformers, to the first embedding"
        lines.append(row(name, peers, size, lambda start: start.first))
    lines.append(row(f"bertha, {count:,} sentences, whole run", whole, size, lambda start: start.whole))
    facts = dict(machine.describe(workers.ROOT))
    text = (
        "\n".join(lines)
        + f"\n\nModel file: {size / 2**20:.1f} MiB. {facts['CPU']}; CPUs of the process: {facts['CPUs of the process']};"
        + f" {facts['date']}; commit {facts['commit']}; load average before: {load:.2f};"
        + f" CPU time that went elsewhere: {others}."
    )
    if arguments.update:
        document.update(document.DOCUMENT, arguments.update, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
