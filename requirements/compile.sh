#!/bin/sh
# Write the locks from pyproject.toml: every dependency by exact version and hash, and no address of any index.
# `requirements/compile.sh --upgrade` takes newer versions; without it, locked versions stay where they still fit.
#   build.lock      what builds the wheel        operator.lock       the operator's image
#   dev.lock        both halves and the tools    inference.lock      the inference image
#   rivals.lock     one benchmark's own          inference-gpu.lock  its variant for GPUs
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-uv}

compile() {
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header --no-annotate "$@"
}

compile pyproject.toml --extra dev --output-file requirements/dev.lock "$@"
# The images hold what the tests ran with, and build.lock is installed beside dev.lock: all must agree.
compile pyproject.toml --extra operator --constraint requirements/dev.lock --output-file requirements/operator.lock "$@"
compile pyproject.toml --extra inference --constraint requirements/dev.lock --output-file requirements/inference.lock "$@"
compile pyproject.toml --extra inference-gpu --constraint requirements/dev.lock \
    --output-file requirements/inference-gpu.lock "$@"
sed -n '/^\[build-system\]/,/^\[project\]/s/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml |
    compile - --constraint requirements/dev.lock --output-file requirements/build.lock "$@"
compile requirements/rivals.in --output-file requirements/rivals.lock "$@"
