#!/bin/sh
# Makes this machine able to run the lab: Debian packages and lxc's bridge (lxcbr0, 10.0.3.1/24).
#
# Usage: prerequisites.sh [--python]     --python: only what .venv needs, without the lab
# Everything that can be wrong is checked before anything is changed. Safe to run again; repairs a
# bridge that an earlier, killed run left half-dead. No service is started on this machine except
# the bridge's own dnsmasq. What was changed is remembered in /run/modhaven-lab for down.sh.
set -eu

packages="vagrant vagrant-lxc lxc dnsmasq-base nftables iproute2 sudo mmdebstrap openssh-client
          openssh-server openssl rsync ca-certificates git python3 python3-venv"
# The tests of direct over SSH start an sshd of their own.
python_packages="git openssh-client openssh-server openssl python3 python3-venv"
bridge=lxcbr0
address=10.0.3.1
state=/run/modhaven-lab

fail() {
    printf 'lab: %s\n' "$*" >&2
    exit 1
}

check_system() {
    [ "$(id -u)" = 0 ] ||
        fail "the lab needs root (containers, a bridge) and this is user $(id -un): run it with sudo."
    command -v apt-get > /dev/null ||
        fail "apt-get was not found: the lab's lxc provider needs Debian 12 or newer; elsewhere use" \
            "'vagrant up --provider=libvirt' or virtualbox."
    # shellcheck source=/dev/null
    os=$(. /etc/os-release && printf '%s %s' "${ID:-unknown}" "${VERSION_ID:-0}")
    case $os in
        debian\ 1[2-9]* | debian\ [2-9][0-9]*) ;;
        *) fail "this machine is '$os' and the lxc lab is made for Debian 12 or newer: use such a" \
            "machine, or 'vagrant up --provider=libvirt' or virtualbox." ;;
    esac
}

check_machine() {
    unshare --fork --pid --mount --propagation unchanged --net --uts --ipc true 2> /dev/null ||
        fail "'unshare --pid --mount --net' was refused: this machine does not let root make" \
            "namespaces (an unprivileged container?); run the lab on a virtual or real machine."
    [ -d /sys/fs/cgroup ] ||
        fail "/sys/fs/cgroup is not there and containers need it: mount the cgroup file system."
    free_kib=$(df --output=avail -k /var | tail -n 1 | tr -d ' ')
    [ "$free_kib" -ge 6000000 ] ||
        fail "/var has $((free_kib / 1024)) MiB free and the lab needs 6000 MiB: make room."
    # A second network with our addresses would swallow the lab's traffic.
    taken=$(sed -n 's/^\([^ \t]*\)\t0003000A\t.*/\1/p' /proc/net/route | grep -vx "$bridge" | head -n 1 || true)
    [ -z "$taken" ] ||
        fail "network 10.0.3.0/24 is already in use on interface $taken: free it, the lab needs it."
}

missing_packages() {
    for package in $packages; do
        status=$(dpkg-query -W -f '${Status}' "$package" 2> /dev/null || true)
        [ "$status" = "install ok installed" ] || printf '%s ' "$package"
    done
}

install_packages() {
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    echo "lab: installing $missing"
    log=$(mktemp)
    policy=/usr/sbin/policy-rc.d
    made_policy=no
    if [ ! -e "$policy" ]; then
        # Debian starts what it installs; a test lab must not leave services on its host.
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod 755 "$policy"
        made_policy=yes
    fi
    trap '[ "$made_policy" = no ] || rm -f "$policy"; rm -f "$log"' EXIT
    trap 'exit 130' INT TERM HUP
    apt-get -q update > "$log" 2>&1 ||
        fail "'apt-get update' failed ($(grep -m 1 '^E:' "$log" || tail -n 1 "$log"));" \
            "check /etc/apt/sources.list* and the network, then run it again."
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends $missing > "$log" 2>&1 ||
        fail "'apt-get install $missing' failed ($(grep -m 1 '^E:' "$log" || tail -n 1 "$log"));" \
            "check that 'apt-get update' reaches its registry, then run it again."
    [ "$made_policy" = no ] || rm -f "$policy"
    rm -f "$log"
    trap - EXIT INT TERM HUP
}

bridge_pids() {
    for entry in /proc/[0-9]*; do
        if tr '\0' ' ' 2> /dev/null < "$entry/cmdline" | grep -q "^[^ ]*dnsmasq .*--interface=$bridge "; then
            echo "${entry#/proc/}"
        fi
    done
}

bridge_is_whole() {
    [ -e /run/lxc/network_up ] &&
        ip -o -4 address show dev "$bridge" 2> /dev/null | grep -q " $address/24 " &&
        [ -n "$(bridge_pids)" ] &&
        { nft list table ip lxc 2> /dev/null || iptables -w -t nat -S 2> /dev/null; } |
        grep -qi masquerade
}

start_bridge() {
    mkdir -p "$state"
    if [ ! -e "$state/ip_forward" ]; then
        cat /proc/sys/net/ipv4/ip_forward > "$state/ip_forward"
    fi
    if ! bridge_is_whole; then
        echo "lab: starting the bridge $bridge ($address/24)"
        touch "$state/bridge"
        if [ -d /run/systemd/system ]; then
            systemctl restart lxc-net ||
                fail "'systemctl restart lxc-net' failed: see 'journalctl -u lxc-net'."
        else
            # A killed run leaves the lock file or a dnsmasq that still holds the address.
            for pid in $(bridge_pids); do kill -9 "$pid" 2> /dev/null || true; done
            rm -f /run/lxc/network_up /run/lxc/dnsmasq.pid
            /usr/libexec/lxc/lxc-net start ||
                fail "'/usr/libexec/lxc/lxc-net start' failed: see its message above."
        fi
        bridge_is_whole ||
            fail "lxc's network was started and $bridge is still not usable: look at" \
                "'ip address show $bridge' and 'nft list ruleset'."
    fi
    echo 1 > /proc/sys/net/ipv4/ip_forward
}

# Machines that run while their bridge was made anew, or whose cable a killed test left pulled.
reconnect_machines() {
    for name in $(lxc-ls --running -1 2> /dev/null); do
        grep -qs '^lxc.environment *= *MODHAVEN_LAB=1' "/var/lib/lxc/$name/config" || continue
        link=$(lxc-info --name "$name" 2> /dev/null | sed -n 's/^Link: *//p' | head -n 1)
        [ -z "$link" ] || ip link set "$link" master "$bridge" up || true
    done
}

if [ "${1:-}" = --python ]; then
    packages=$python_packages
    # Nothing to install needs nobody's permission.
    [ -z "$(missing_packages)" ] || { check_system && install_packages; }
    exit
fi
check_system
check_machine
install_packages
start_bridge
reconnect_machines
