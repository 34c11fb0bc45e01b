#!/usr/bin/env bash
# Fetches the real model once and runs every test.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/fetch-model.sh
cargo test --workspace
