#!/usr/bin/env bash
# `make up`: the lab's machines, the deployment, and the proof, one step after the other. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PWD/.venv/bin:$PATH"
# Tasks that changed nothing are not worth a line; their names still show the progress.
export ANSIBLE_DISPLAY_OK_HOSTS=no ANSIBLE_FORCE_COLOR="${ANSIBLE_FORCE_COLOR:-$([ -t 1 ] && echo 1 || echo 0)}"
inventory=${MODHAVEN_INVENTORY:-inventories/lab}
started=$SECONDS

step() {
    printf '\n==> [%s/5] %s (after %d s)\n' "$1" "$2" "$((SECONDS - started))"
}

give_up() {
    printf '\nmake up stopped at: %s\nThe lab is left as it is: run "make up" again, or "make down" and begin anew.\n' "$current" >&2
}
status=0
trap 'status=$?; [ $status = 0 ] || give_up; exit $status' EXIT

current="the base box"
step 1 "The base box, made of this machine's own Debian packages (once)"
tests/lab/box.sh

current="the machines"
step 2 "The machines of $inventory"
vagrant up --provider=lxc --no-provision

current="the stand-ins for mirrors and git server (tests/lab/lab.yml)"
step 3 "The stand-ins for goproxy.cn, goproxy.io, proxy.golang.org and a company's git server, and go on the client"
ansible-playbook -i "$inventory" tests/lab/lab.yml

current="the deployment (site.yml)"
step 4 "ansible-playbook -i $inventory site.yml"
ansible-playbook -i "$inventory" site.yml

current="the proof"
step 5 "A real download through it"
tests/lab/show.py
printf '\nDone in %d s.\n' "$((SECONDS - started))"
