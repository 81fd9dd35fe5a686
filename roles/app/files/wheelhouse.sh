#!/usr/bin/env bash
# Builds one release of the app: modhaven's wheel and its dependencies' wheels for one Python version and architecture,
# in one archive. Prints the archive's path. The archive is named after everything that goes into it, so an archive
# that exists is current.
set -euo pipefail

if [ $# -ne 5 ]; then
    echo "usage: wheelhouse.sh PROJECT OUTPUT PYTHON VERSION ARCHITECTURE (such as 3.11 x86_64, the host's)" >&2
    exit 2
fi
project=$(realpath "$1") output=$2 python=$3 version=$4 architecture=$5

mkdir -p "$output"
exec 9>"$output/lock"
flock 9

own_version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$project/app/modhaven/__init__.py")
content=$(cd "$project" && find app pyproject.toml LICENSE requirements/app.txt requirements/build.txt roles/app/files \
    -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12)
archive="$output/$own_version-$content-py$version-$architecture.tar"
if [ ! -e "$archive" ]; then
    work=$(mktemp -d "$output/building.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    "$python" -m venv "$work/venv"
    # Of a registry that does not answer, the last try says it.
    pip() {
        "$work/venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet "$@" 2>&1 | sed '/Retry(total=[1-9]/d' >&2
    }
    pip install --require-hashes -r "$project/requirements/build.txt"
    pip wheel --no-deps --no-build-isolation --wheel-dir "$work/wheels" "$project"
    # The newest C library that Debian 12 satisfies (2.36), and what is older.
    platforms=()
    for tag in manylinux_2_34 manylinux_2_28 manylinux_2_17 manylinux2014 manylinux_2_12 manylinux2010; do
        platforms+=(--platform "${tag}_$architecture")
    done
    pip download --require-hashes --only-binary :all: --python-version "$version" --implementation cp "${platforms[@]}" \
        --dest "$work/wheels" -r "$project/requirements/app.txt"
    cp "$project/requirements/app.txt" "$work/wheels/"
    tar -C "$work/wheels" -cf "$work/archive.tar" .
    # Archives of older releases are only in the way.
    rm -f "$output"/*-py"$version-$architecture".tar
    mv "$work/archive.tar" "$archive"
    echo "built $archive" >&2
fi
echo "$archive"
