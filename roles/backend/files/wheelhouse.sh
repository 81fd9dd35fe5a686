#!/usr/bin/env bash
# Builds one release of the app: modhaven's wheel and its dependencies' wheels for one Python version, in one
# archive. Prints the archive's path. The archive's name is made of everything that goes into it, so an archive that
# exists is current.
set -euo pipefail

if [ $# -ne 3 ]; then
    echo "usage: wheelhouse.sh PROJECT OUTPUT PYTHON_VERSION (such as 3.11)" >&2
    exit 2
fi
project=$(realpath "$1") output=$2 python_version=$3

mkdir -p "$output"
exec 9>"$output/lock"
flock 9

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$project/app/modhaven/__init__.py")
content=$(cd "$project" && find app pyproject.toml LICENSE requirements/app.txt requirements/build.txt roles/backend/files/wheelhouse.sh \
    -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12)
archive="$output/$version-$content-py$python_version.tar"
if [ ! -e "$archive" ]; then
    work=$(mktemp -d "$output/building.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    python3 -m venv "$work/venv"
    pip() { "$work/venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
    pip install --require-hashes -r "$project/requirements/build.txt"
    pip wheel --no-deps --no-build-isolation --wheel-dir "$work/wheels" "$project"
    pip download --require-hashes --only-binary :all: --python-version "$python_version" \
        --dest "$work/wheels" -r "$project/requirements/app.txt"
    cp "$project/requirements/app.txt" "$work/wheels/"
    tar -C "$work/wheels" -cf "$work/archive.tar" .
    mv "$work/archive.tar" "$archive"
    echo "built $archive" >&2
fi
echo "$archive"
