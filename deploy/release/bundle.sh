#!/usr/bin/env bash
# Writes what a release consists of besides its images: `bundle.sh VERSION DIGEST DIRECTORY`, with VERSION as in Cargo.toml
# and DIGEST that of the image (of the index, if there is one for each architecture). NOTES names the section of
# CHANGELOG.md, by default VERSION; HELM and CARGO_SBOM are those programs.
set -euo pipefail
version=$1
digest=$2
mkdir -p "$3"
directory=$(realpath "$3")
cd "$(dirname "$0")/../.."
repository=ghcr.io/heraldlb/herald
chart=deploy/helm/herald

# Every place that names the version names this one.
fail() {
  echo "release: $1" >&2
  exit 1
}
grep -q "^version = \"$version\"$" Cargo.toml || fail "Cargo.toml has another version than $version: set workspace.package.version"
grep -q "^version: $version$" $chart/Chart.yaml || fail "$chart/Chart.yaml has another version than $version: set version"
grep -q "^appVersion: v$version$" $chart/Chart.yaml || fail "$chart/Chart.yaml has another appVersion than v$version: set it"
[[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || fail "$digest is not a digest: write sha256: and 64 hexadecimal digits"

# The manifests pin the image by its digest; the tag stays for people to read.
for manifest in deploy/*.yaml; do
  name=$(basename "$manifest")
  sed "s|image: $repository:v$version\$|image: $repository:v$version@$digest|" "$manifest" >"$directory/$name"
  images=$(sed -n 's/^ *\(- \)\?image: //p' "$directory/$name" | grep -v "^$repository:v$version@$digest$" || true)
  [ -z "$images" ] || fail "$manifest names $images and not $repository:v$version: set newTag in deploy/*/kustomization.yaml, then make manifests"
done

# The chart, with the digest among its default values.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r $chart "$work/herald"
sed -i "s|^  digest: \"\" .*|  digest: $digest|" "$work/herald/values.yaml"
export HELM_CACHE_HOME="$work/cache" HELM_CONFIG_HOME="$work/config" HELM_DATA_HOME="$work/data"
"${HELM:-helm}" package "$work/herald" --destination "$directory" >&2
"${HELM:-helm}" template herald "$directory/herald-$version.tgz" | grep -q "image: $repository@$digest" \
  || fail "the packaged chart does not name the digest: see image.digest in $chart/values.yaml"

# The software bill of materials of each program.
for program in herald-controller herald-speaker; do
  "${CARGO_SBOM:-cargo-sbom}" --cargo-package $program --output-format cyclone_dx_json_1_6 >"$directory/$program.cdx.json"
done

# The notes.
notes=${NOTES:-$version}
awk -v heading="## $notes" 'index($0, "## ") == 1 { inside = ($0 == heading || index($0, heading " ") == 1); next } inside' \
  CHANGELOG.md | sed '/./,$!d' >"$directory/notes.md"
[ -s "$directory/notes.md" ] || fail "CHANGELOG.md has no section \"## $notes\", or it is empty: write it"

cd "$directory"
rm -f SHA256SUMS
find . -maxdepth 1 -type f -printf '%P\n' | LC_ALL=C sort | xargs sha256sum >"$work/sums"
mv "$work/sums" SHA256SUMS
