#!/usr/bin/env bash
# Publishes the nginx configuration of every variant with the roles' own tasks and this release's real nginx, in a
# throw-away copy of this machine's root, so that nothing of it is changed. Then asks gixy.
set -euo pipefail
cd "$(dirname "$0")/../.."
project=$PWD

if [ "${1:-}" != --inside ]; then
    [ "$(id -u)" = 0 ] || { echo "tests/lint/nginx.sh: needs root, for a mount namespace: run make lint as root." >&2; exit 1; }
    exec unshare --mount --fork "$0" --inside
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

for variant in tests/lint/variants/*.yml; do
    rm -rf "$copy/root/etc/nginx/modhaven"* "$copy/root/etc/modhaven/pool.yml"
    # -e: certificates and facts as the hosts would have them; no host is asked.
    inside ansible-playbook -i "$variant" tests/lint/publish.yml --tags publish >"$copy/log" 2>&1 ||
        { cat "$copy/log"; echo "tests/lint/nginx.sh: $variant cannot be published" >&2; exit 1; }
    # hsts_header: a matter of browsers; no browser comes here.
    inside gixy --skips hsts_header /etc/nginx/nginx.conf >"$copy/log" 2>&1 ||
        { cat "$copy/log"; echo "tests/lint/nginx.sh: gixy has findings for $variant" >&2; exit 1; }
    echo "nginx -t and gixy: $(basename "$variant" .yml) ok"
done
