#!/usr/bin/env bash
# Builds Herald's image as an OCI archive, and prints its digest: `image.sh PROGRAMS ARCHITECTURE ARCHIVE`. PROGRAMS is the
# directory of the static programs, ARCHITECTURE amd64 or arm64. The same programs make an image with the same digest.
set -euo pipefail
programs=$(realpath "$1")
architecture=$2
archive=$(realpath --no-symlinks "$3")
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/context"
# The programs may be symbolic links. Their permissions and times are part of the image.
for program in herald-controller herald-speaker; do
  install --mode 755 "$(realpath "$programs/$program")" "$work/context/$program"
done
buildah() { command buildah --root "$work/root" --runroot "$work/runroot" --storage-driver vfs "$@"; }
buildah build --quiet --isolation chroot --layers=false --cni-config-dir "$work/cni" --arch "$architecture" --os linux \
  --timestamp 0 --tag herald --file deploy/Containerfile "$work/context" >/dev/null
rm -f "$archive"
buildah push --quiet herald "oci-archive:$archive" >/dev/null
tar --extract --to-stdout --file "$archive" index.json \
  | python3 -c 'import json, sys; print(json.load(sys.stdin)["manifests"][0]["digest"])'
