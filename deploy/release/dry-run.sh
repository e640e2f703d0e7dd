#!/usr/bin/env bash
# Does what .github/workflows/release.yml does, as far as it needs no registry and no key: `make release-dry-run`. The
# result is in target/release-dry-run. Images of arm64, signatures, provenance and everything that is pushed are left to
# the workflow.
set -euo pipefail
cd "$(dirname "$0")/../.."
directory=target/release-dry-run
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
rm -rf "$directory"
mkdir -p "$directory"

echo "image of amd64, twice"
# Building an image may need root; the files belong to the user nevertheless.
digest=$(${SUDO:-} deploy/release/image.sh target/herald amd64 "$directory/herald-amd64.tar")
again=$(${SUDO:-} deploy/release/image.sh target/herald amd64 "$directory/again.tar")
[ -z "${SUDO:-}" ] || $SUDO chown "$(id -u):$(id -g)" "$directory"/*.tar
rm -f "$directory/again.tar"
if [ "$digest" != "$again" ]; then
  echo "release: the same programs made the images $digest and $again: something in the image depends on the time or the machine" >&2
  exit 1
fi

echo "manifests, chart, software bill of materials, notes, checksums"
NOTES=Unreleased deploy/release/bundle.sh "$version" "$digest" "$directory"
(cd "$directory" && sha256sum --check --quiet SHA256SUMS)
echo "release $version of image $digest is in $directory:"
ls "$directory"
