#!/bin/sh
# The private modules of the lab's git server; runs on it. Authors and dates are fixed, and so are the commits.
# Usage: git_repositories.sh FOLDER HTTPS_NAME SSH_NAME     Makes bare repositories below FOLDER:
#   team/greet     HTTPS_NAME/team/greet v1.0.0, v1.1.0 (needs its sub-module words and the public rsc.io/quote), v2.0.0
#                  below /v2, and a commit without a tag, which has a pseudo-version
#   tools/clock    HTTPS_NAME/tools/clock.git v0.1.0: the path itself says where the repository is
#   team/ledger    SSH_NAME/team/ledger v1.0.0
set -eu
umask 022

folder=$1 https=$2 ssh=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GIT_AUTHOR_NAME=lab GIT_AUTHOR_EMAIL=lab@corp.example GIT_COMMITTER_NAME=lab GIT_COMMITTER_EMAIL=lab@corp.example
export GIT_CONFIG_GLOBAL=/dev/null
minute=0

begin() {
    git init --quiet --initial-branch=main "$work/$1"
    cd "$work/$1"
}

commit() {
    minute=$((minute + 1))
    git add --all
    GIT_AUTHOR_DATE="2024-05-01T12:$(printf %02d $minute):00Z" GIT_COMMITTER_DATE="2024-05-01T12:$(printf %02d $minute):00Z" \
        git commit --quiet --message "$1"
}

# In place by one rename: a run that is cut short leaves nothing that looks whole.
publish() {
    mkdir -p "$folder/$(dirname "$1")"
    rm -rf "$folder/$1.git" "$folder/$1.part"
    git clone --quiet --bare "$work/$(basename "$1")" "$folder/$1.part"
    mv "$folder/$1.part" "$folder/$1.git"
}

begin greet
printf 'module %s/team/greet\n\ngo 1.21\n' "$https" > go.mod
printf 'package greet\n\n// Hello greets.\nfunc Hello() string { return "greetings of v1.0.0" }\n' > greet.go
commit "Greet"
git tag v1.0.0
mkdir words
printf 'module %s/team/greet/words\n\ngo 1.21\n' "$https" > words/go.mod
printf 'package words\n\n// Friend is whom to greet.\nconst Friend = "private friend"\n' > words/words.go
commit "Words of their own"
git tag words/v0.1.0
printf 'module %s/team/greet\n\ngo 1.21\n\nrequire (\n\t%s/team/greet/words v0.1.0\n\trsc.io/quote v1.5.2\n)\n' \
    "$https" "$https" > go.mod
cat > greet.go << GO
package greet

import (
	"$https/team/greet/words"
	"rsc.io/quote"
)

// Hello greets a friend.
func Hello() string { return words.Friend + ": " + quote.Hello() }
GO
commit "Greet a friend"
git tag v1.1.0
git checkout --quiet -b v2
printf 'module %s/team/greet/v2\n\ngo 1.21\n' "$https" > go.mod
printf 'package greet\n\n// Hello greets in the second way.\nfunc Hello() string { return "greetings of v2.0.0" }\n' > greet.go
rm -r words
commit "Greet in another way"
git tag v2.0.0
git checkout --quiet main
printf '\n// Bye says good-bye.\nfunc Bye() string { return "bye, " + words.Friend }\n' >> greet.go
commit "Say good-bye, not released yet"
publish team/greet

begin clock
printf 'module %s/tools/clock.git\n\ngo 1.21\n' "$https" > go.mod
printf 'package clock\n\n// Now is always the same.\nfunc Now() string { return "a private clock" }\n' > clock.go
commit "Tell the time"
git tag v0.1.0
publish tools/clock

begin ledger
printf 'module %s/team/ledger\n\ngo 1.21\n' "$ssh" > go.mod
printf 'package ledger\n\n// Total is what the books say.\nfunc Total() string { return "a private ledger" }\n' > ledger.go
commit "Keep books"
git tag v1.0.0
publish team/ledger
