#!/usr/bin/env bash
# Publishes the nginx configuration of every variant with the roles' own tasks and real nginx, in a throw-away copy of this
# machine's root, so that nothing of it is changed. Then asks gixy, and compares what was published with its snapshot.
# Variants called trixie-… are published as on Debian 13, with its nginx.
# Usage: nginx.sh [--write]     --write replaces the snapshots.
set -euo pipefail
cd "$(dirname "$0")/../.."
project=$PWD

action=check
if [ "${1:-}" = --write ]; then
    action='write'
    shift
fi
if [ "${1:-}" != --inside ]; then
    [ "$(id -u)" = 0 ] || { echo "tests/lint/nginx.sh: needs root, for a mount namespace: run make lint as root." >&2; exit 1; }
    tests/lint/trixie.sh
    [ "$action" = check ] || set -- --write
    exec unshare --mount --fork "$0" "$@" --inside
fi

debs=$project/.lab/nginx
if ! ls "$debs"/*.deb >/dev/null 2>&1; then
    mkdir -p "$debs"
    download() {
        # shellcheck disable=SC2046 # a list of packages
        (cd "$debs" && apt-get -qq -o APT::Sandbox::User=root download $(apt-cache depends --recurse --no-recommends \
            --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances nginx | grep -E '^nginx' | sort -u))
    }
    # Package lists may be older than the packages they name.
    download 2>/dev/null || { apt-get -qq update && download; } ||
        { echo "tests/lint/nginx.sh: 'apt-get download nginx' failed: run 'apt-get update' and try again." >&2; exit 1; }
fi

copy=$(mktemp -d /var/tmp/modhaven-lint.XXXXXX)
trap 'umount -R "$copy/root" && rm -rf --one-file-system "$copy"' EXIT
mkdir "$copy/upper" "$copy/work" "$copy/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$copy/upper,workdir=$copy/work" "$copy/root"
for special in /proc /dev "$project"; do
    mkdir -p "$copy/root$special"
    mount --rbind "$special" "$copy/root$special"
done
rm -rf "$copy/root/etc/nginx" "$copy/root/var/lib/nginx"
for deb in "$debs"/*.deb; do
    # Not dpkg-deb --extract: it would make a directory of the link /lib.
    dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$copy/root"
done

inside() { chroot "$copy/root" /usr/bin/env -C "$project" "PATH=$project/.venv/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$@"; }

# Debian 13 to the roles, with its own nginx in its own libraries.
become_trixie() {
    trixie=$project/.lab/trixie
    cp --remove-destination "$trixie/usr/lib/os-release" "$copy/root/etc/os-release"
    cp "$trixie/etc/debian_version" "$copy/root/etc/debian_version"
    mv "$copy/root/usr/sbin/nginx" "$copy/root/usr/sbin/nginx.bookworm"
    loader=$(readlink -f "$trixie"/lib64/ld-linux-*)
    # shellcheck disable=SC2016 # for the script's own shell
    printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' "$loader" "$(dirname "$loader")" "$trixie/usr/sbin/nginx" \
        >"$copy/root/usr/sbin/nginx"
    chmod 755 "$copy/root/usr/sbin/nginx"
    inside nginx -v 2>&1 | grep -q ' nginx/1\.26' || { echo "tests/lint/nginx.sh: Debian 13's nginx does not run" >&2; exit 1; }
}

differs=
# The default first: the snapshots of the others are what differs from it.
for path in tests/lint/variants/default.yml $(find tests/lint/variants -name '*.yml' ! -name default.yml | sort); do
    variant=$(basename "$path" .yml)
    [[ $variant != trixie-* || -e $copy/root/usr/sbin/nginx.bookworm ]] || become_trixie
    rm -rf "$copy/root/etc/nginx/modhaven"* "$copy/root/etc/modhaven/pool.yml"
    # -e: certificates and facts as the hosts would have them; no host is asked.
    inside ansible-playbook -i "$path" tests/lint/publish.yml --tags publish >"$copy/log" 2>&1 ||
        { cat "$copy/log"; echo "tests/lint/nginx.sh: $variant cannot be published" >&2; exit 1; }
    if ! inside nginx -t >"$copy/log" 2>&1 || grep -q '\[warn\]' "$copy/log"; then
        cat "$copy/log"
        echo "tests/lint/nginx.sh: nginx is not content with $variant" >&2
        exit 1
    fi
    # hsts_header: a matter of browsers; no browser comes here.
    inside gixy --skips hsts_header /etc/nginx/nginx.conf >"$copy/log" 2>&1 ||
        { cat "$copy/log"; echo "tests/lint/nginx.sh: gixy has findings for $variant" >&2; exit 1; }
    python3 tests/lint/snapshots.py "$action" "$copy/root" "$variant" || differs=yes
    echo "nginx -t, gixy, snapshot: $variant done"
done
[ -z "$differs" ]
