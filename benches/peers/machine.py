"""What the benchmark ran on, for the head of its report."""

import os
import platform
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path

# The instruction sets that decide the speed of products, of the many in /proc/cpuinfo.
FLAGS = (
    "sse4_2 avx avx2 fma f16c avx512f avx512bw avx512dq avx512vl avx512_vnni avx512_bf16 avx512_fp16 "
    "avx_vnni amx_tile amx_bf16 amx_int8 asimd sve"
).split()


def describe(root):
    """Pairs of a name and a value."""
    cpu = _cpuinfo()
    flags = cpu.get("flags", cpu.get("Features", "")).split()
    return [
        ("date", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
        ("CPU", f"{cpu.get('model name', platform.processor() or platform.machine())}{_model(cpu)}"),
        ("CPUs of the process", f"{_usable_cpus()}{_threads_per_core()}{_quota()}"),
        ("caches", _caches()),
        ("instruction sets", " ".join(flag for flag in FLAGS if flag in flags)),
        ("memory", _memory()),
        ("system", f"{platform.system()} {platform.release()}, {platform.libc_ver()[0]} {platform.libc_ver()[1]}"),
        ("compiler", _output("rustc", "--version")),
        ("Python", platform.python_version()),
        ("commit", _commit(root)),
    ]


class Watch:
    """How much of the CPUs' time since it was made went to others: processes, and the host."""

    def __init__(self):
        self._start = time.monotonic()
        self._busy, self._stolen = _cpu_seconds()
        self._ours = self._own()

    def read(self):
        """Seconds since then, and a sentence. Children count once they have been waited for."""
        seconds = time.monotonic() - self._start
        if self._busy is None:
            return seconds, "unknown"
        busy, stolen = _cpu_seconds()
        available = seconds * os.cpu_count()
        others = (busy - self._busy) - (self._own() - self._ours)
        share = max(0.0, others / available)
        return seconds, f"other processes {share:.1%}, the host {(stolen - self._stolen) / available:.1%}"

    @staticmethod
    def _own():
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system


def _cpu_seconds():
    """Seconds that all CPUs have worked, and that the host took from them."""
    fields = _read("/proc/stat").partition("\n")[0].split()[1:]
    if len(fields) < 8:
        return None, None
    user, nice, system, _, _, irq, softirq, stolen = (int(field) for field in fields[:8])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / ticks, stolen / ticks


def _read(path):
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _output(*command, cwd=None):
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _cpuinfo():
    first, _, _ = _read("/proc/cpuinfo").partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _model(cpu):
    if "cpu family" not in cpu:
        return ""
    return f" (family {cpu['cpu family']}, model {cpu.get('model', '?')})"


def _usable_cpus():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _threads_per_core():
    siblings = _read("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    if not siblings:
        return ""
    count = 0
    for part in siblings.split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return f", {count} a core"


def _quota():
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    if not quota or quota == "max":
        return ""
    return f", cgroup quota of {int(quota) / int(period):g}"


def _caches():
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if _read(index / "type") != "Instruction":
            found.append(f"L{_read(index / 'level')} {_read(index / 'size')}")
    return ", ".join(found) or "unknown"


def _memory():
    first = _read("/proc/meminfo").partition("\n")[0].split()
    return f"{int(first[1]) / 2**20:.0f} GiB" if len(first) == 3 else "unknown"


def _commit(root):
    commit = _output("git", "rev-parse", "--short", "HEAD", cwd=root)
    if commit == "unknown":
        return commit
    changed = _output("git", "status", "--porcelain", "--untracked-files=no", cwd=root)
    return f"{commit} with changes" if changed else commit
