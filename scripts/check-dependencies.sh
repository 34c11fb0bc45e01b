#!/usr/bin/env bash
# The rules on what a user of the library compiles: fewer than 60 crates, no native library, no C
# compiler, no command line or server code, no build script of ours.
set -euo pipefail
cd "$(dirname "$0")/.."

tree=$(cargo tree --package bertha -e normal --prefix none | sed 's/ (\*)$//' | sort -u)
count=$(printf '%s\n' "$tree" | wc -l)
echo "the library's dependency tree: $count crates"
fail() { echo "error: $*" >&2; exit 1; }

[ "$count" -lt 60 ] || fail "$count crates, expected fewer than 60"
build_tree=$(cargo tree --package bertha -e normal,build --prefix none | sed 's/ (\*)$//' | sort -u)
bad=$(printf '%s\n' "$tree" | grep -E '^([a-z0-9_-]+-sys|cc|cmake|bindgen|pkg-config|clap|indicatif|tokenizers) ' || true)
[ -z "$bad" ] || fail "the library depends on: $bad"
bad=$(printf '%s\n' "$build_tree" | grep -E '^([a-z0-9_-]+-sys|cc|cmake|bindgen|pkg-config) ' || true)
[ -z "$bad" ] || fail "the library's build depends on: $bad"
scripts=$(git ls-files '*build.rs')
[ -z "$scripts" ] || fail "build scripts of our own: $scripts"
