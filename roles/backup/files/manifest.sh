#!/bin/sh
# manifest.sh write|check FOLDER: the SHA-256 of every file of a backup, in its file MANIFEST.sha256.
# `check` says what is damaged, missing or too much, and its exit status is then 1.
set -eu
umask 077
LC_ALL=C
export LC_ALL
cd "$2"
list=$(mktemp)
trap 'rm -f "$list"' EXIT
find . -type f ! -path ./MANIFEST.sha256 | sort >"$list"

case $1 in
write)
    tr '\n' '\0' <"$list" | xargs -0 -r sha256sum >MANIFEST.sha256
    # It is renamed into its place next: not before it is on disk.
    sync --file-system MANIFEST.sha256
    wc -l <"$list"
    du -s --block-size=1 . | cut -f1
    ;;
check)
    damaged=0
    sha256sum --check --quiet --strict MANIFEST.sha256 2>&1 || damaged=1
    # A hash of 64 digits and two separators are before each name.
    if ! cut -c67- MANIFEST.sha256 | comm -13 - "$list" | sed 's/$/: not in the manifest/' | awk '{ print } END { exit NR > 0 }'; then
        damaged=1
    fi
    exit "$damaged"
    ;;
esac
