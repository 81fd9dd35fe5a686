#!/bin/sh
# Usage: debian_sources.sh [RELEASE]
# This machine's apt sources of Debian's own packages, of one release or of all: deb URI RELEASE COMPONENT
set -eu

sources() {
    # shellcheck disable=SC2016 # the $(…) are apt's own fields
    apt-get indextargets --format '$(ORIGIN)|$(RELEASE)|$(TARGET_OF)|$(REPO_URI)|$(COMPONENT)' \
        'Created-By: Packages' | sort -u |
        awk -F'|' -v release="$1" '
            $1 == "Debian" && $3 == "deb" && (release == "" || $2 == release || index($2, release "-") == 1) {
                print "deb", $4, $2, $5 }'
}

found=$(sources "${1:-}")
if [ -z "$found" ] && [ "$(id -u)" = 0 ]; then
    # apt knows an entry's origin only once its index is there.
    apt-get -q update > /dev/null 2>&1 || true
    found=$(sources "${1:-}")
fi
[ -z "$found" ] || printf '%s\n' "$found"
