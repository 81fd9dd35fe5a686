#!/bin/sh
# What the lab's backends know of its git server and what opens it: a password and a key pair, made once.
# Usage: git_secrets.sh FOLDER     Makes FOLDER/password and FOLDER/id_ed25519{,.pub}; prints a line for each.
set -eu

folder=$1
umask 077
mkdir -p "$folder"

if [ ! -s "$folder/password" ]; then
    openssl rand -hex 16 > "$folder/password"
    echo "made the password of the git server"
fi
if [ ! -s "$folder/id_ed25519" ]; then
    rm -f "$folder/id_ed25519.pub"
    ssh-keygen -q -t ed25519 -N "" -C "modhaven lab backends" -f "$folder/id_ed25519"
    echo "made the key pair for the git server"
fi
