#!/usr/bin/env bash
# Fetches this release's nginx and wrk as Debian packages and unpacks them below .lab/bench: nothing is installed, no
# service is started. Prints the folder that stands for the root of a file system with both.
set -euo pipefail
cd "$(dirname "$0")/../.."

for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || { echo "tests/bench: '$tool' was not found: the benchmarks need Debian 12 or newer." >&2; exit 1; }
done
folder=$PWD/.lab/bench
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9
if [ ! -e "$folder/root/complete" ]; then
    rm -rf "$folder/debs" "$folder/root"
    mkdir -p "$folder/debs" "$folder/root"
    download() {
        # shellcheck disable=SC2046 # a list of packages
        (cd "$folder/debs" && apt-get -qq -o APT::Sandbox::User=root download $(apt-cache depends --recurse \
            --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances nginx wrk |
            grep -E '^(nginx|wrk|libluajit)' | sort -u))
    }
    # Package lists may be older than the packages they name.
    download 2>/dev/null || { apt-get -qq update && download; } ||
        { echo "tests/bench: 'apt-get download nginx wrk' failed: run 'apt-get update' as root and try again." >&2; exit 1; }
    for deb in "$folder"/debs/*.deb; do
        dpkg-deb --extract "$deb" "$folder/root"
    done
    touch "$folder/root/complete"
fi
echo "$folder/root"
