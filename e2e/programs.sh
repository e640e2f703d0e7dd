#!/usr/bin/env bash
# Builds Herald's programs and herald-lab: static, optimised, in target/herald.
#
# One call, one profile and one target, so that cargo compiles common dependencies once: building the laboratory by
# itself, with a target directory of its own, would add 2 minutes on two processors.
set -euo pipefail
cd "$(dirname "$0")/.."
host="$(rustc -vV | sed -n 's/^host: //p')"
mkdir -p target/herald
for program in herald-controller herald-speaker herald-echo herald-lab; do
  ln -sfn "../static/$host/release/$program" "target/herald/$program"
done
# With an explicit --target the flags do not apply to build scripts and procedural macros, which cannot be static.
# `exec` replaces this process with cargo, so that a signal ends cargo.
exec env -u CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR=target/static RUSTFLAGS='-C target-feature=+crt-static' \
  cargo build --release --locked --target "$host" \
  -p herald-controller -p herald-speaker -p herald-echo -p herald-e2e "$@"
