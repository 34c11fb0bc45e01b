#!/bin/sh
# Measures bertha beside candle, PyTorch, ONNX Runtime and OpenVINO, and prints tables in markdown: see
# docs/benchmarks.md.
#
#     benches/peers/run.sh                      # everything; about ten minutes on two cores
#     benches/peers/run.sh --shapes minilm      # one shape; --help tells the rest
#     PYTHON=python3 benches/peers/run.sh       # a Python that already has requirements.txt
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${PYTHON:-}" ]; then
    venv=${CARGO_TARGET_DIR:-$here/../../target}/peers/venv
    if [ ! -f "$venv/complete" ]; then
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet -r "$here/requirements.txt" >&2
        touch "$venv/complete"
    fi
    PYTHON=$venv/bin/python
fi
exec "$PYTHON" "$here/run.py" "$@"
