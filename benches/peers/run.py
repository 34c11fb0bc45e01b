"""Measures bertha beside candle, PyTorch, ONNX Runtime and OpenVINO in one interleaved run; prints tables
in markdown.

Every worker has its model loaded and waits. In each round each worker in turn runs the same case,
so that a machine whose clock wanders slows all of them alike. Ratios are taken within a round, and
the table gives medians over the rounds. Outputs are compared before anything is timed.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from contextlib import ExitStack, closing
from datetime import datetime, timezone

import document
import machine
import make_models
import workers

# What the load average may be before a run on a machine that counts as idle.
IDLE_LOAD = 0.3


def parse_arguments():
    names = "".join(f"  {name:14} {what}\n" for name, what in workers.KNOWN.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"workers:\n{names}  NAME+reuse     any of them, with glibc told to keep freed memory\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--precision", default="f32", choices=workers.PRECISIONS, help="of products (%(default)s)"
    )
    parser.add_argument("--workers", help="the first is compared with the rest (default: all of the precision)")
    parser.add_argument("--shapes", default=",".join(make_models.SHAPES), help="%(default)s")
    parser.add_argument("--cases", help="names in cases.json (default: all)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each worker (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each case, at least (%(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=18.0,
        help="a case's rounds go on until these have passed (%(default)s)",
    )
    parser.add_argument(
        "--visit",
        type=float,
        default=0.5,
        metavar="SECONDS",
        help="how long a worker runs a case in a round, at least one pass (%(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="also write every measured second here")
    parser.add_argument(
        "--update",
        metavar="SECTION",
        help="write the tables into this section of docs/benchmarks.md instead of printing them",
    )
    arguments = parser.parse_args()
    known, arguments.tolerance = workers.PRECISIONS[arguments.precision]
    arguments.workers = arguments.workers.split(",") if arguments.workers else list(known)
    arguments.shapes = arguments.shapes.split(",")
    for name in arguments.workers:
        if name.removesuffix("+reuse") not in workers.KNOWN:
            parser.error(f"unknown worker {name}: {', '.join(workers.KNOWN)}")
    for shape in arguments.shapes:
        if shape not in make_models.SHAPES:
            parser.error(f"unknown shape {shape}: {', '.join(make_models.SHAPES)}")
    if min(arguments.threads, arguments.rounds) < 1:
        parser.error("--threads and --rounds are at least 1")
    return arguments, parser


def read_cases(names, parser):
    cases = json.loads(workers.CASES.read_text())
    if names is None:
        return cases
    wanted = names.split(",")
    unknown = set(wanted) - {case["name"] for case in cases}
    if unknown:
        parser.error(f"no case {', '.join(sorted(unknown))} in {workers.CASES}")
    return [case for case in cases if case["name"] in wanted]


def say(text):
    print(text, file=sys.stderr, flush=True)


class Series:
    """One worker on one case: in one batch as it comes, or sorted, in chunks."""

    def __init__(self, worker, case, chunk=None):
        self.worker = worker
        self.tokens = sum(case["lengths"])
        self.chunk = chunk
        self.request = case["name"] if chunk is None else f"{case['name']}:{chunk}"
        self.iterations = 1
        self.rounds = []

    def warm_up(self, visit):
        """Runs the case until it is warm and sets the passes of a visit; the checksums."""
        seconds, checksum = self.worker.ask(self.request, 1)
        if seconds[0] < 2 * visit:
            seconds, _ = self.worker.ask(self.request, 3)
            # One more than are kept: the first pass after another worker's finds cold caches.
            self.iterations = math.ceil(visit / min(seconds)) + 1
        return checksum

    def measure(self):
        seconds, _ = self.worker.ask(self.request, self.iterations)
        self.rounds.append(seconds[1:] or seconds)

    def medians(self):
        return [statistics.median(seconds) for seconds in self.rounds]

    def rate(self):
        """Real tokens a second."""
        return self.tokens / statistics.median(self.medians())


def measure_case(case, running, arguments):
    """The series of a case, measured in turn, and the largest difference of their outputs."""
    series = [Series(worker, case) for worker in running]
    # Engines that pad may sort and cut the batch, to pad less; bertha never pads.
    for chunk in case.get("sorted_chunks", ()):
        series += [Series(w, case, chunk) for w in running if not is_bertha(w.name)]

    first = None
    difference = 0.0
    for one in series:
        checksum = one.warm_up(arguments.visit)
        first = first or checksum
        apart = max(abs(a - b) for a, b in zip(first, checksum, strict=True))
        if not apart <= arguments.tolerance:
            sys.exit(
                f"{one.worker.name} on {one.request}: outputs differ by {apart:g} from "
                f"{series[0].worker.name}'s, more than {arguments.tolerance}: they do not compute the same"
            )
        difference = max(difference, apart)

    start = time.monotonic()
    rounds = 0
    while rounds < arguments.rounds or time.monotonic() - start < arguments.seconds:
        # Another begins each round: nobody always follows the same neighbour.
        first_up = rounds % len(series)
        for one in series[first_up:] + series[:first_up]:
            one.measure()
        rounds += 1
    rates = ", ".join(f"{s.worker.name}{f':{s.chunk}' if s.chunk else ''} {s.rate():,.0f}" for s in series)
    say(f"  {case['name']}: {rates} tok/s; {rounds} rounds in {time.monotonic() - start:.0f} s")
    return series, difference


def is_bertha(name):
    return name.removesuffix("+reuse") == "bertha"


def faster(reference, other):
    """How many times faster than `other` the reference is: the median of the rounds' ratios."""
    pairs = zip(reference.medians(), other.medians(), strict=True)
    return statistics.median(theirs / ours for ours, theirs in pairs)


def rows_of(case, series):
    """For each row of the table its title and the series by worker."""
    plain = {one.worker.name: one for one in series if one.chunk is None}
    chunks = case.get("sorted_chunks", ())
    if not chunks:
        return [(case["name"], plain)]
    rows = [(f"{case['name']}, as it comes", plain)]
    for chunk in chunks:
        cut = {one.worker.name: one for one in series if one.chunk == chunk}
        rows.append((f"{case['name']}, peers sorted, in {chunk}s", {**plain, **cut}))
    return rows


def table(measured, names):
    """Real tokens a second of each worker, and how many times faster the first is."""
    reference, *others = names
    heads = ["case", "tokens", f"{reference} tok/s"]
    for name in others:
        heads += [f"{name} tok/s", f"{reference} ÷ {name}"]
    heads += ["rounds", "outputs apart"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for case, series, difference in measured:
        for title, row in rows_of(case, series):
            ours = row[reference]
            cells = [title, str(ours.tokens), f"{ours.rate():,.0f}"]
            for name in others:
                cells += [f"{row[name].rate():,.0f}", f"**{faster(ours, row[name]):.2f}**"]
            lines.append([*cells, str(len(ours.rounds)), f"{difference:.0e}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def measure_shape(shape, cases, commands, arguments):
    say(f"{shape}: loading")
    model = make_models.make(shape, workers.target_dir() / "models")
    with ExitStack() as stack:
        running = []
        for name, start in commands.items():
            worker = workers.Worker(name, start, model, arguments.threads, arguments.precision)
            running.append(stack.enter_context(closing(worker)))
        measured = [(case, *measure_case(case, running, arguments)) for case in cases]
    return {worker.name: worker.about for worker in running}, measured


def raw(measured):
    return [
        {
            "case": one.request,
            "worker": one.worker.name,
            "tokens": one.tokens,
            "seconds": one.rounds,
        }
        for case, series, _ in measured
        for one in series
    ]


def head(facts, about):
    """The table of the machine, the run and the workers."""
    lines = ["| | |", "| --- | --- |"]
    lines += [f"| {key} | {value} |" for key, value in facts]
    for name, what in about.items():
        told = ", ".join(f"{key} {value}" for key, value in what.items() if key != "engine")
        lines.append(f"| {name} | {workers.KNOWN[name.removesuffix('+reuse')]}: {told} |")
    return "\n".join(lines)


def main():
    arguments, parser = parse_arguments()
    cases = read_cases(arguments.cases, parser)
    load = os.getloadavg()[0]
    if load > IDLE_LOAD:
        say(f"warning: the load average is {load:.2f}; for numbers worth keeping, wait until it is idle")
    commands = {name: workers.command(name.removesuffix("+reuse")) for name in arguments.workers}

    facts = machine.describe(workers.ROOT)
    watch = machine.Watch()
    results = {}
    for shape in arguments.shapes:
        about, measured = measure_shape(shape, cases, commands, arguments)
        results[shape] = {"workers": about, "measured": measured}
    seconds, others = watch.read()
    facts += [
        ("run", f"{arguments.precision}, {arguments.threads} threads, {seconds / 60:.1f} minutes"),
        ("load average before", f"{load:.2f}"),
        ("the CPUs' time that went elsewhere", others),
    ]

    about = next(iter(results.values()))["workers"]
    parts = [head(facts, about)]
    for shape, result in results.items():
        parts.append(f"**{shape}**: {make_models.title(shape)}")
        parts.append(table(result["measured"], arguments.workers))
    text = "\n\n".join(parts)
    if arguments.update:
        document.update(document.DOCUMENT, arguments.update, text)
    else:
        print(text)

    if arguments.json:
        for result in results.values():
            result["measured"] = raw(result["measured"])
        finished = datetime.now(timezone.utc).isoformat(timespec="seconds")
        report = {"finished": finished, "machine": dict(facts), "shapes": results}
        with open(arguments.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
