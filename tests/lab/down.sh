#!/bin/sh
# Removes every trace of the lab: containers however broken, vagrant's state, the bridge if
# prerequisites.sh started it. Works without vagrant, and when its state is lost or wrong.
# Usage: down.sh [--all | --host NAME]
#   The base box and what .lab caches (Go, certificates) stay for the next time; --all removes them.
#   --host removes the remains of one container only.
set -eu

lab=$(realpath "$(dirname "$0")")
repository=$(realpath "$lab/../..")
state=/run/modhaven-lab
bridge=lxcbr0
lxc=/var/lib/lxc

say() { printf 'lab: %s\n' "$*"; }

[ "$(id -u)" = 0 ] || {
    say "removing the lab needs root and this is user $(id -un): run it with sudo." >&2
    exit 1
}

# Machines of a hypervisor are vagrant's business alone.
destroy_other_providers() {
    for machine in "$repository"/.vagrant/machines/*/libvirt/id "$repository"/.vagrant/machines/*/virtualbox/id; do
        [ -e "$machine" ] || continue
        (cd "$repository" && vagrant destroy --force) ||
            say "'vagrant destroy' failed: look at the machines with your hypervisor's own tools."
        return 0
    done
}

# Without it 'vagrant global-status' would list the machines for ever.
forget_machines() {
    index=${VAGRANT_HOME:-$HOME/.vagrant.d}/data/machine-index/index
    [ -s "$index" ] || return 0
    python3 - "$index" "$repository" << 'PYTHON'
import json, pathlib, sys

path, repository = pathlib.Path(sys.argv[1]), sys.argv[2]
index = json.loads(path.read_text())
index["machines"] = {
    key: machine for key, machine in index.get("machines", {}).items()
    if machine.get("vagrantfile_path") != repository
}
part = path.with_suffix(".part")
part.write_text(json.dumps(index))
part.replace(path)
PYTHON
}

# A vagrant of this lab that is still at work would create again what is removed here.
stop_vagrant() {
    for entry in /proc/[0-9]*; do
        pid=${entry#/proc/}
        [ "$pid" != "$$" ] || continue
        [ "$(readlink "$entry/cwd" 2> /dev/null || true)" = "$repository" ] || continue
        tr '\0' ' ' 2> /dev/null < "$entry/cmdline" | grep -Eq '^[^ ]*(ruby[^ ]*|vagrant) .*vagrant|^[^ ]*vagrant ' ||
            continue
        # Vagrant lets itself be killed only; its lxc-create and ssh children end with it.
        say "ending an unfinished vagrant (process $pid)"
        kill -9 "$pid" 2> /dev/null || true
    done
}

# Names of this lab's hosts: of the inventories, of vagrant's state, and of containers it marked.
lab_hosts() {
    {
        sed -n 's/^ *\([A-Za-z0-9-]*\): *{.*ansible_host: *10\.0\.3\..*/\1/p' \
            "$repository/inventories/lab/hosts.yml" 2> /dev/null || true
        for machine in "$repository"/.vagrant/machines/*/lxc; do
            [ ! -d "$machine" ] || basename "$(dirname "$machine")"
        done
        grep -ls '^lxc.environment *= *MODHAVEN_LAB=1' "$lxc"/*/config 2> /dev/null |
            sed "s|^$lxc/\(.*\)/config\$|\1|" || true
    } | sort -u
}

# Processes on this machine that make, run or remove a container: lxc's monitor and commands, and
# the template's shell and tar, which work in the new root.
container_pids() {
    for entry in /proc/[0-9]*; do
        command=$(tr '\0' ' ' 2> /dev/null < "$entry/cmdline" || true)
        case $(readlink "$entry/cwd" 2> /dev/null || true) in
            "$lxc/$1" | "$lxc/$1"/*) echo "${entry#/proc/}" && continue ;;
        esac
        case $command in
            "[lxc monitor] $lxc $1 "* | "[lxc monitor] $lxc $1") ;;
            *lxc-template*" --path $lxc/$1 "* | *lxc-create*" --name $1 "*) ;;
            *lxc-start*" --name $1 "* | *lxc-stop*" --name $1 "* | *lxc-destroy*" --name $1 "*) ;;
            *) continue ;;
        esac
        echo "${entry#/proc/}"
    done
}

# A container of the lab carries its mark once it has been started; before that its configuration
# names the lab's box, and while lxc-create is at work it is "partial" or has no configuration.
is_ours() {
    [ -e "$lxc/$1/partial" ] || [ ! -s "$lxc/$1/config" ] ||
        grep -Eq '^lxc.environment *= *MODHAVEN_LAB=1|/modhaven-VAGRANTSLASH-' "$lxc/$1/config"
}

remove_container() {
    name=$1
    [ -d "$lxc/$name" ] || return 0
    is_ours "$name" || {
        say "container $name was not made by this lab and stays; the lab needs its name: rename it."
        return 0
    }
    say "removing $name"
    timeout 20 lxc-stop --name "$name" --kill > /dev/null 2>&1 || true
    for pid in $(container_pids "$name"); do kill -9 "$pid" 2> /dev/null || true; done
    timeout 60 lxc-destroy --name "$name" --force > /dev/null 2>&1 || true
    # lxc-destroy refuses a container without a readable configuration.
    if [ -d "$lxc/$name" ]; then
        awk -v root="$lxc/$name/" 'index($2, root) == 1 { print $2 }' /proc/mounts | sort -r |
            while read -r mounted; do umount --lazy "$mounted" || true; done
        rm -rf --one-file-system "${lxc:?}/$name"
    fi
    rm -rf "/run/lxc/lock$lxc/.$name" "/run/lxc/lock$lxc/$name"
}

remove_bridge() {
    [ -e "$state/bridge" ] || return 0
    if ls "/sys/class/net/$bridge/brif/"* > /dev/null 2>&1; then
        say "$bridge stays: other containers use it"
        return 0
    fi
    if [ -d /run/systemd/system ]; then
        systemctl stop lxc-net || true
    elif [ -x /usr/libexec/lxc/lxc-net ]; then
        touch /run/lxc/network_up
        /usr/libexec/lxc/lxc-net stop || true
        rm -f /run/lxc/network_up
    fi
    rm -f /var/lib/misc/dnsmasq.$bridge.leases
    [ ! -e "$state/ip_forward" ] || cat "$state/ip_forward" > /proc/sys/net/ipv4/ip_forward
    rm -rf "$state"
}

if [ "${1:-}" = --host ]; then
    remove_container "$2"
    exit
fi
stop_vagrant
destroy_other_providers
for host in $(lab_hosts); do remove_container "$host" & done
wait
forget_machines || true
rm -rf "$repository/.vagrant"
rm -rf --one-file-system /var/tmp/modhaven-lab-box.*
rm -rf "$repository"/.lab/cache/build.*
remove_bridge
if [ "${1:-}" = --all ]; then
    box=${VAGRANT_HOME:-$HOME/.vagrant.d}/boxes/modhaven-VAGRANTSLASH-debian12
    rm -rf "$repository/.lab" "$box" /run/lock/modhaven-lab-box
fi
say "the lab is gone"
