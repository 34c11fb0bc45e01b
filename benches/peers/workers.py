"""The programs that are measured: how they are built, started and asked."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CASES = HERE / "cases.json"

# name: (what it is, RUSTFLAGS, cargo features) of the candle builds.
CANDLE = {
    "candle": ("candle as `cargo build --release` makes it", "", ()),
    "candle-native": ("candle compiled for this CPU", "-C target-cpu=native", ()),
    "candle-avx512": (
        "the same with the AVX-512 kernels of its gemm crate, which it leaves off",
        "-C target-cpu=native",
        ("avx512",),
    ),
}
KNOWN = {
    "bertha": "bertha as `cargo build --release` makes it",
    **{name: what for name, (what, _, _) in CANDLE.items()},
    "torch": "transformers' BertModel on PyTorch, eager, SDPA attention, inference mode",
    "onnx": "the same model exported by PyTorch, on ONNX Runtime",
    "openvino": "the same model exported by PyTorch, on OpenVINO, dynamic shapes, hint for latency",
}
# Who runs in a precision, and how far checksums may be apart: of f32 they are the same computation, of the others each
# engine rounds in its own way, and OpenVINO's int8 knows random texts alone.
PRECISIONS = {
    "f32": (("bertha", "candle-avx512", "torch", "onnx", "openvino"), 1e-3),
    "bf16": (("bertha", "torch", "openvino"), 0.3),
    "int8": (("bertha", "onnx", "openvino"), 10.0),
}
# What the workers in Python need.
MODULES = {
    "torch": ("numpy", "safetensors", "torch", "transformers"),
    "onnx": ("numpy", "onnx", "onnxruntime", "onnxscript", "torch", "transformers"),
    "openvino": ("numpy", "nncf", "onnx", "onnxscript", "openvino", "torch", "transformers"),
}

# glibc gives large blocks back to the system and faults them in again at the next pass. `NAME+reuse`
# is the worker told to keep them.
REUSE = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(32 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}


def target_dir():
    """Where builds, model folders and results go; never into the sources."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "peers"


def command(name):
    """Builds what a worker needs; the command that starts it, without its arguments."""
    if name == "bertha":
        return [_cargo(ROOT, {}, "--package", "bertha", "--example", "bench_encoder")]
    if name in MODULES:
        missing = [module for module in MODULES[name] if not importlib.util.find_spec(module)]
        if missing:
            sys.exit(
                f"{sys.executable} lacks {', '.join(missing)}: run\n"
                f"    {sys.executable} -m pip install -r {HERE / 'requirements.txt'}\n"
                f"or leave {name} out of --workers"
            )
        return [sys.executable, str(HERE / f"worker_{name}.py")]
    _, flags, features = CANDLE[name]
    # A folder for each build: another RUSTFLAGS in the same one compiles everything again.
    options = ["--bin", "peer-candle", "--target-dir", str(target_dir() / f"build-{name}")]
    for feature in features:
        options += ["--features", feature]
    return [_cargo(HERE, {"RUSTFLAGS": flags} if flags else {}, *options)]


def command_line():
    """Builds the `bertha` binary; its path."""
    return _cargo(ROOT, {}, "--package", "bertha-cli", "--bin", "bertha")


def _cargo(folder, variables, *options):
    """Builds with cargo; the path of the executable."""
    environment = {key: value for key, value in os.environ.items() if key != "RUSTFLAGS"}
    build = ["cargo", "build", "--release", "--message-format", "json-render-diagnostics"]
    done = subprocess.run(
        [*build, "--manifest-path", str(folder / "Cargo.toml"), *options],
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        sys.exit(f"cargo could not build {' '.join(options)}")
    made = (json.loads(line).get("executable") for line in done.stdout.splitlines())
    return [path for path in made if path][-1]


class Worker:
    """A running worker, stopped by the system while another is measured."""

    def __init__(self, name, start, model, threads, precision):
        self.name = name
        count = str(threads)
        environment = {
            **os.environ,
            "RAYON_NUM_THREADS": count,
            "OMP_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
        }
        if name.endswith("+reuse"):
            environment.update(REUSE)
        self.process = subprocess.Popen(
            [
                *start,
                *("--model", str(model), "--cases", str(CASES)),
                *("--threads", count, "--precision", precision),
            ],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._answer()
        self._signal("SIGSTOP")

    def ask(self, case, iterations):
        """The seconds of `iterations` passes over a case, and its checksums."""
        self._signal("SIGCONT")
        self.process.stdin.write(f"{case} {iterations}\n")
        self.process.stdin.flush()
        answer = self._answer()
        self._signal("SIGSTOP")
        return answer["seconds"], answer["checksum"]

    def close(self):
        self._signal("SIGCONT")
        self.process.stdin.close()
        self.process.wait()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with exit code {self.process.wait()}; its message is above")
        return json.loads(line)

    def _signal(self, name):
        # Threads that wait in a spin loop would otherwise run beside the worker that is measured.
        if hasattr(signal, name) and self.process.poll() is None:
            self.process.send_signal(getattr(signal, name))
