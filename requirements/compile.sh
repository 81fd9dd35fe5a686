#!/usr/bin/env bash
# Pins what *.in allow into *.txt, with hashes and without saying where from.
set -euo pipefail
cd "$(dirname "$0")"
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
/usr/bin/python3 -m venv "$tools"
"$tools/bin/python" -m pip install --quiet --disable-pip-version-check pip-tools
for name in app build deploy direct dev; do
    echo "==> requirements/$name.txt"
    "$tools/bin/pip-compile" --quiet --upgrade --no-header --generate-hashes --allow-unsafe --strip-extras \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options "$name.in" --output-file "$name.txt"
done
