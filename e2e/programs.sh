#!/usr/bin/env bash
# Builds Herald's programs and herald-lab: static, optimised, in target/herald.
#
# One call, one profile and one target, so that cargo compiles common dependencies once: building the laboratory by
# itself, with a target directory of its own, would add 2 minutes on two processors.
set -euo pipefail
cd "$(dirname "$0")/.."
# What `--version` says. It has the date of the commit, not of the build, so that a build can be repeated.
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)"
# Under sudo the checkout belongs to another user, which git refuses unless told otherwise. A directory in a checkout of
# something else, as an unpacked archive may be, is no checkout of Herald.
git() { command git -c 'safe.directory=*' "$@"; }
if [ "$(git rev-parse --show-prefix 2>/dev/null || echo none)" = '' ]; then
  commit="$(git log -1 --abbrev=12 --date=short --format='%h, %cd')"
  [ -z "$(git status --porcelain --untracked-files=no)" ] || commit+=', with changes'
else
  commit='commit unknown: not built from a git checkout'
fi
host="$(rustc -vV | sed -n 's/^host: //p')"
mkdir -p target/herald
for program in herald-controller herald-speaker herald-echo herald-lab; do
  ln -sfn "../static/$host/release/$program" "target/herald/$program"
done
# With an explicit --target the flags do not apply to build scripts and procedural macros, which cannot be static.
# `exec` replaces this process with cargo, so that a signal ends cargo.
exec env -u CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR=target/static HERALD_VERSION="$version ($commit)" \
  RUSTFLAGS='-C target-feature=+crt-static' \
  cargo build --release --locked --target "$host" \
  -p herald-controller -p herald-speaker -p herald-echo -p herald-e2e "$@"
