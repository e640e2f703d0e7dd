#!/usr/bin/env bash
# Builds Herald's programs, and herald-lab with them: static, optimised, in target/herald.
#
# One call, one profile and one target, so that cargo compiles what they depend on once: the laboratory by itself, from
# a target directory of its own, would add 2 minutes on two processors.
set -euo pipefail
cd "$(dirname "$0")/.."
host="$(rustc -vV | sed -n 's/^host: //p')"
mkdir -p target/herald
for program in herald-controller herald-speaker herald-echo herald-lab; do
  ln -sfn "../static/$host/release/$program" "target/herald/$program"
done
# With an explicit --target the flags do not reach build scripts and procedural macros, which cannot be static. `exec`:
# cargo is what a signal to this process ends.
exec env -u CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR=target/static RUSTFLAGS='-C target-feature=+crt-static' \
  cargo build --release --locked --target "$host" \
  -p herald-controller -p herald-speaker -p herald-echo -p herald-e2e "$@"
