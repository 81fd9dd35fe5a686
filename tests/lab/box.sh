#!/bin/sh
# Builds the lab's base box, modhaven/debian12: a bare Debian 12 with sshd, sudo and python3.
#
# The packages come from this machine's own apt sources, with its own apt settings. The box is
# rebuilt only when its recipe changes (this file, the sources, the settings, the resolver); the
# recipe's hash is kept in the box's metadata.json, so a half-made box never counts as made.
# Usage: box.sh [--check]     --check only tells (exit status 0 or 1) whether the box is current.
set -eu

name=modhaven/debian12
release=bookworm
# python3-apt: ansible's apt module needs it, in check mode it cannot install it by itself.
# libnss-myhostname: a host knows its own name, or each sudo would wait for the resolver.
include=systemd,systemd-sysv,dbus,openssh-server,sudo,python3,python3-apt,iproute2,iputils-ping
include=$include,procps,netbase,ca-certificates,ifupdown,libnss-myhostname
box_dir=${VAGRANT_HOME:-$HOME/.vagrant.d}/boxes/modhaven-VAGRANTSLASH-debian12/0/lxc

fail() {
    printf 'lab box: %s\n' "$*" >&2
    exit 1
}

# The settings of this machine's apt that decide whether and how a registry is reached.
apt_settings() {
    apt-config dump | grep -E '^Acquire::(https?::|Check-|Retries|ForceIPv|socks::)' |
        grep -v ' "";$' || true
    for scheme in http https; do
        eval "proxy=\${${scheme}_proxy:-}"
        [ -z "$proxy" ] || apt-config dump | grep -q "^Acquire::${scheme}::Proxy \"." ||
            printf 'Acquire::%s::Proxy "%s";\n' "$scheme" "$proxy"
    done
}

resolver() {
    if grep -Eq '^nameserver[[:space:]]+(127\.|::1)' /etc/resolv.conf; then
        echo "nameserver 10.0.3.1" # a resolver on this machine: ask it through the bridge's dnsmasq
    else
        grep -E '^(nameserver|search|options)' /etc/resolv.conf
    fi
}

vagrant_key() {
    find /usr/share/rubygems-integration /opt/vagrant -name vagrant.pub -path '*/keys/*' 2> /dev/null |
        head -n 1
}

recipe() {
    { cat "$0" "$key"; printf '%s\n' "$sources" "$settings" "$nameservers"; } |
        sha256sum | cut -d ' ' -f 1
}

is_current() {
    grep -qs "\"recipe\": *\"$recipe\"" "$box_dir/metadata.json" && [ -s "$box_dir/rootfs.tar.gz" ]
}

# Runs as mmdebstrap's last step, with the new root as its argument.
customize() {
    root=$1
    chroot "$root" useradd --create-home --shell /bin/bash vagrant
    install -d -m 700 "$root/home/vagrant/.ssh"
    install -m 600 "$key" "$root/home/vagrant/.ssh/authorized_keys"
    chroot "$root" chown -R vagrant:vagrant /home/vagrant/.ssh
    echo 'vagrant ALL=(ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/vagrant"
    chmod 440 "$root/etc/sudoers.d/vagrant"
    # lxc configures eth0 itself; ifupdown must leave it alone.
    printf 'auto lo\niface lo inet loopback\n' > "$root/etc/network/interfaces"
    # With an /etc/hostname every host would be called like the machine that built the box.
    rm -f "$root/etc/hostname" "$root/etc/resolv.conf" "$root"/etc/ssh/ssh_host_*
    printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' > "$root/etc/hosts"
    printf '%s\n' "$nameservers" > "$root/etc/resolv.conf"
    printf '%s\n' "$sources" > "$root/etc/apt/sources.list"
    [ -z "$settings" ] || printf '%s\n' "$settings" > "$root/etc/apt/apt.conf.d/80lab-host"
    : > "$root/etc/machine-id"
    cat > "$root/etc/systemd/system/lab-host-keys.service" <<'UNIT'
[Unit]
Description=SSH host keys of this very host
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ecdsa -N "" -f /etc/ssh/ssh_host_ecdsa_key
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key

[Install]
WantedBy=ssh.service
UNIT
    chroot "$root" systemctl --quiet enable lab-host-keys.service
    # Timers that take apt's lock at a moment of their own would fail a deployment at random.
    chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer
    # What ansible's cache_valid_time looks at.
    mkdir -p "$root/var/lib/apt/periodic"
    touch "$root/var/lib/apt/periodic/update-success-stamp"
}

build() {
    mkdir "$work/rootfs"
    # mmdebstrap runs its hook as a child process: it gets what it needs from the environment.
    export key sources settings nameservers
    printf '%s\n' "$sources" | mmdebstrap --quiet --mode=root --variant=minbase \
        --include="$include" \
        --skip=cleanup/apt/lists \
        --aptopt='APT::Install-Recommends "false"' \
        --aptopt='Acquire::Languages "none"' \
        --aptopt='Acquire::GzipIndexes "true"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook="'$0' --customize \"\$1\"" \
        "$release" "$work/rootfs" - > "$work/log" 2>&1 ||
        fail "mmdebstrap failed ($(grep -m 1 '^E:' "$work/log" || tail -n 1 "$work/log"));" \
            "check that 'apt-get update' works on this machine, then run it again."
    tar -C "$work" --numeric-owner --xattrs --one-file-system -cf - ./rootfs |
        gzip -1 > "$work/rootfs.tar.gz"
    printf '{"provider": "lxc", "version": "1.0.0", "recipe": "%s"}\n' "$recipe" > "$work/metadata.json"
    tar -C "$work" -cf "$work/lab.box" metadata.json rootfs.tar.gz
    # Outside the repository, so that vagrant does not read this lab's Vagrantfile once more.
    (cd "$work" && env -u VAGRANT_CWD vagrant box add --force --name "$name" lab.box > "$work/log" 2>&1) ||
        fail "'vagrant box add' failed: $(tail -n 3 "$work/log" | tr '\n' ' ')"
}

case $0 in /*) ;; *) exec "$(realpath "$0")" "$@" ;; esac

if [ "${1:-}" = --customize ]; then
    customize "$2"
    exit
fi

sources=$("$(dirname "$0")/debian_sources.sh" "$release")
[ -n "$sources" ] || fail "apt on this machine has no Debian $release source: the box is made from" \
    "the machine's own sources; add a Debian $release entry, or set MODHAVEN_BOX to a box you have."
settings=$(apt_settings)
nameservers=$(resolver)
key=$(vagrant_key)
[ -n "$key" ] || fail "vagrant's public key was not found: install vagrant (prerequisites.sh does)."
recipe=$(recipe)

if is_current; then exit 0; fi
[ "${1:-}" != --check ] || exit 1

exec 9> /run/lock/modhaven-lab-box
flock 9
if is_current; then exit 0; fi # another run made it meanwhile
# A killed build leaves its folder: nobody else holds the lock, so it is rubbish.
rm -rf --one-file-system /var/tmp/modhaven-lab-box.*
work=$(mktemp -d /var/tmp/modhaven-lab-box.XXXXXX)
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM HUP
echo "lab box: building $name ($release, about a minute)"
build
echo "lab box: $name is ready"
