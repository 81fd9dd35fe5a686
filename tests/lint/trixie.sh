#!/usr/bin/env bash
# Unpacks Debian 13's nginx, with its libraries, into .lab/trixie, from this machine's own apt sources.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$PWD/.lab/trixie
[ ! -x "$target/usr/sbin/nginx" ] || exit 0

mirror=$(tests/lab/debian_sources.sh | awk '$3 !~ /-/ && $4 == "main" { print $2; exit }')
[ -n "$mirror" ] || { echo "tests/lint/trixie.sh: this machine's apt has no source of Debian's own packages." >&2; exit 1; }
mkdir -p .lab
rm -rf "$target.new" "$target"
printf 'deb %s trixie main\n' "$mirror" |
    mmdebstrap --quiet --mode=root --variant=extract --include=nginx,base-files trixie "$target.new" - ||
    { echo "tests/lint/trixie.sh: mmdebstrap cannot fetch Debian 13's nginx from $mirror: see above." >&2; exit 1; }
mv "$target.new" "$target"
