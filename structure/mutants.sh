#!/usr/bin/env bash
# Changes the code of the deciding crates, one place at a time, and runs the unit tests of the changed crate: each change
# that no test notices is a missing test, or code that does nothing. docs/simulation.md says how to read the result.
#
#   structure/mutants.sh path/to/cargo-mutants [--sample n | --shard k/n]
set -euo pipefail
cd "$(dirname "$0")/.."
mutants=$1
shift

# The crates, and of the controller the modules that decide. Without `--test-workspace` each is tested by its own tests.
places=(
  --package herald-protocol --package herald-crds --package herald-kube-common --package herald-controller
  --file 'protocol/src/**' --file 'crds/src/**' --file 'kube-common/src/**'
  --file 'controller/src/allocator/**' --file 'controller/src/index/**'
)
shard=()
case ${1:-} in
  --shard)
    shard=(--shard "$2")
    ;;
  --sample)
    # Round-robin shards are spread over all files. One of them is chosen at random, and printed so that it can be repeated.
    total=$("$mutants" mutants --list "${places[@]}" | wc -l)
    shards=$((total > $2 ? total / $2 : 1))
    shard=(--shard "$((RANDOM % shards))/$shards")
    echo "$total places; to repeat this sample: make mutants SHARD=${shard[1]}"
    ;;
esac

# Tests link faster without debug information. cargo-mutants stops tests that take five times as long as those of the
# unchanged code; a minute is the least that it waits, since short tests take longer on a busy machine.
export CARGO_PROFILE_DEV_DEBUG=false
exec "$mutants" mutants "${places[@]}" "${shard[@]}" --sharding round-robin --output target/mutants --no-shuffle \
  --minimum-test-timeout 60 --colors never
