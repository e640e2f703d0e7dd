#!/usr/bin/env bash
# Builds herald-controller and herald-speaker of an earlier commit: `e2e/last-release.sh COMMIT DIRECTORY`. The directory
# gets the commit's files (`sources`) and the two programs (`herald-controller`, `herald-speaker`).
#
# cargo shares the dependencies with e2e/programs.sh, which must have run before: otherwise they are compiled here.
set -euo pipefail
cd "$(dirname "$0")/.."
commit=$1
directory=$2
mkdir -p "$directory"
directory=$(realpath "$directory")
sources=$directory/sources

# Under sudo the checkout belongs to another user, which git refuses unless told otherwise.
git=(git -c 'safe.directory=*')
if [ ! -d "$sources" ]; then
  if ! "${git[@]}" cat-file -e "$commit^{commit}" 2>/dev/null; then
    echo "This checkout lacks commit $commit, from which the last release is built. To fetch it:" >&2
    echo "  git fetch --depth 1 origin $commit    (all of the history: git fetch --unshallow)" >&2
    exit 1
  fi
  # An archive, because a worktree would stay registered in the repository after `make clean`.
  rm -rf "$sources.next"
  mkdir "$sources.next"
  "${git[@]}" archive "$commit" | tar --extract --directory "$sources.next"
  # The laboratory of that commit is not used, and compiling it would take as long as the programs. Its Cargo.toml counts,
  # though: cargo chooses the features of dependencies by the selected packages, and with the features of
  # e2e/programs.sh it finds the dependencies compiled.
  for crate in e2e lab; do
    for root in lib main; do
      file="$sources.next/$crate/src/$root.rs"
      if [ -e "$file" ]; then printf '//! Left out: see e2e/last-release.sh.\n%s' "$([ $root = lib ] || echo 'fn main() {}')" >"$file"; fi
    done
  done
  # cargo tells packages apart by name, version and path in their workspace: with another version than today's, their
  # intermediate files do not replace today's.
  sed -i '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/version = "\1-last"/' "$sources.next/Cargo.toml"
  sed -i '/^name = "herald-/{n;s/^version = "\(.*\)"/version = "\1-last"/}' "$sources.next/Cargo.lock"
  mv "$sources.next" "$sources"
fi

host="$(rustc -vV | sed -n 's/^host: //p')"
# cargo is started here, so that the toolchain of this checkout is used, and shares the intermediate files of
# e2e/programs.sh, but not its results, which have the same names.
#
# Without optimisation the build takes less than half the time. That changes when the programs do something, not what.
members=()
while read -r member; do members+=(--config "profile.release.package.$member.opt-level=0"); done \
  < <(sed -n 's/^name = "\(herald-.*\)"/\1/p' "$sources/Cargo.lock" | grep -v -e e2e -e lab)
env -u CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR=target/last-release CARGO_BUILD_BUILD_DIR="$PWD/target/static" \
  RUSTFLAGS='-C target-feature=+crt-static' \
  cargo build --release --locked --target "$host" --manifest-path "$sources/Cargo.toml" \
  -p herald-controller -p herald-speaker -p herald-echo -p herald-e2e "${members[@]}"
for program in herald-controller herald-speaker; do
  cp "target/last-release/$host/release/$program" "$directory/$program.next"
  mv "$directory/$program.next" "$directory/$program"
done
