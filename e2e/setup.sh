#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages the laboratory needs, if any is missing. Says what it is about to do.
set -euo pipefail

# program -> package; the CNI plugins are no program on PATH.
declare -A package=(
  [runc]=runc [nft]=nftables [iptables]=iptables [conntrack]=conntrack [ip]=iproute2 [unshare]=util-linux
  [nsenter]=util-linux [buildah]=buildah [tcpdump]=tcpdump [modprobe]=kmod [ipset]=ipset [socat]=socat
  [cc]=gcc [make]=make [python3]=python3 [git]=git
)
missing=()
for program in "${!package[@]}"; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
[ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
# buildah pulls nothing here, but will not start without a policy file.
[ -e /etc/containers/policy.json ] || missing+=(golang-github-containers-common)
[ ${#missing[@]} -gt 0 ] || exit 0

mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
if ! command -v apt-get >/dev/null; then
  echo "The lab needs these Debian packages, and this system has no apt-get to install them: ${missing[*]}" >&2
  exit 1
fi
sudo=()
if [ "$(id -u)" != 0 ]; then sudo=(sudo); fi
echo "Installing Debian packages the lab needs: ${missing[*]}"
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
