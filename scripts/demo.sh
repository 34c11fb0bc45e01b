#!/usr/bin/env bash
# The main job, on a real model: fetches all-MiniLM-L6-v2, builds the binary, searches this README.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/fetch-model.sh
cargo build --release -p bertha-cli
bertha=${CARGO_TARGET_DIR:-target}/release/bertha
printf '\nAn embedding (the first values):\n'
"$bertha" embed --model models/all-MiniLM-L6-v2 "A cat sits on the mat." | cut -c1-100
printf '\nThe lines of README.md nearest to a question:\n'
"$bertha" search --model models/all-MiniLM-L6-v2 --corpus README.md --top-k 3 --format text \
    "Do results depend on the number of threads?"
