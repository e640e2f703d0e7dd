#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that the laboratory needs, if any is missing, after printing their names.
# `e2e/setup.sh vm-kernel` adds the packages for building user-mode Linux, `e2e/setup.sh stock-kernel` those for a
# virtual machine with Debian's own kernel. (Both need Debian: Ubuntu has no linux-source-6.12.) `e2e/setup.sh recordings` adds
# Python's virtual environments.
set -euo pipefail

# Map from program to package. The CNI plugins are not programs on the PATH.
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
# buildah pulls nothing here, but does not start without a policy file.
[ -e /etc/containers/policy.json ] || missing+=(golang-github-containers-common)
case "${1:-}" in
vm-kernel)
  for program in flex bison bc xz; do
    command -v "$program" >/dev/null || missing+=("${program/#xz/xz-utils}")
  done
  [ -e /usr/src/linux-source-6.12.tar.xz ] || missing+=(linux-source-6.12)
  ;;
stock-kernel)
  PATH="$PATH:/usr/sbin:/sbin" command -v mke2fs >/dev/null || missing+=(e2fsprogs)
  command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
  command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
  command -v ssh >/dev/null || missing+=(openssh-client)
  ;;
recordings)
  python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
  ;;
'') ;;
*)
  echo "e2e/setup.sh: ${1} is none of vm-kernel, stock-kernel and recordings" >&2
  exit 2
  ;;
esac
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
