#!/bin/sh
# Installs one release from its wheels; runs on the backend. The file `installed` comes last: a release without it is
# installed again from the start.
# Usage: install-release.sh WHEELS RELEASE KEEP     KEEP: how many releases stay, the running one included
set -eu
wheels=$1 release=$2 keep=$3
# The app's user reads what root installs, whatever root's own umask is.
umask 022
rm -rf "$release"
/usr/bin/python3 -m venv "$release"
"$release/bin/pip" install --quiet --no-index --find-links "$wheels" --require-hashes --requirement "$wheels/app.txt"
"$release/bin/pip" install --quiet --no-index --find-links "$wheels" --no-deps modhaven
date --utc --iso-8601=seconds > "$release/installed"
rm -rf "$wheels"

running=$(readlink -f /opt/modhaven/current || true)
before=$(readlink -f /opt/modhaven/previous || true)
# shellcheck disable=SC2012 # names are ours; by age
ls -1dt "$(dirname "$release")"/*/ | tail -n +"$((keep + 1))" | while read -r old; do
    case $(readlink -f "$old") in
        "$running" | "$before") ;;
        *) rm -rf "$old" ;;
    esac
done
