#!/usr/bin/env bash
# Herald on Debian's stock kernel with systemd: one node in a machine that QEMU emulates. Emulation is 16 to 70 times
# slower than a processor, so a second node does not fit, and durations measured there mean nothing.
#
# Needs root (for mmdebstrap and mke2fs), the packages that `e2e/setup.sh stock-kernel` installs, and the programs in
# the cache (`make cluster`). Exits with the status of the test in the machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
checkout="$PWD"
cache="${HERALD_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/herald-lab}"
work="$(mktemp -d "${TMPDIR:-/var/tmp}/herald-stock-kernel.XXXXXX")"
machine=
# The emulator is ended by its process ID, and its files are removed with their directory.
trap 'status=$?; if [ -n "$machine" ]; then kill "$machine" 2>/dev/null; wait "$machine" 2>/dev/null; fi; rm -rf "$work"; exit $status' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# A free port.
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
packages=systemd-sysv,linux-image-cloud-amd64,openssh-server,dbus,libpam-systemd,curl,ca-certificates
packages+=,runc,nftables,iptables,conntrack,iproute2,util-linux,mount,procps,kmod,tcpdump,ipset,socat,buildah
packages+=,containernetworking-plugins,golang-github-containers-common

target/herald/herald-lab image --workload

echo "== making a Debian with systemd and its stock kernel (about 3 minutes)"
root="$work/root"
mmdebstrap --quiet --variant=apt --include="$packages" bookworm "$root"
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
install -d -m 700 "$root/root/.ssh"
install -m 600 "$work/key.pub" "$root/root/.ssh/authorized_keys"
cat >"$root/etc/systemd/network/80-any.network" <<'EOF'
[Match]
Name=en* eth*
[Network]
DHCP=yes
EOF
ln -s /lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/"
for unit in ipvsadm.service systemd-networkd-wait-online.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
echo "/dev/vda / ext4 defaults 0 1" >"$root/etc/fstab"
# The programs and images at the paths where herald-lab looks for them, and the checkout's manifests.
mkdir -p "$root$cache" "$root$checkout/target"
cp -a "$cache/bin" "$cache/images" "$root$cache/"
rm -rf "$root$cache/images/buildah"
cp -aL "$checkout/target/herald" "$root$checkout/target/"
cp -a "$checkout/target/image" "$root$checkout/target/"
cp -a "$checkout/deploy" "$root$checkout/"
mkdir -p "$root$checkout/e2e"

echo "== writing its disk"
mke2fs -q -t ext4 -d "$root" "$work/root.img" 6G
cp "$root"/boot/vmlinuz-* "$work/vmlinuz"
cp "$root"/boot/initrd.img-* "$work/initrd"
rm -rf "$root"

echo "== starting it"
qemu-system-x86_64 -accel tcg,thread=multi,tb-size=1024 -cpu max -smp 2 -m 4G -nodefaults -no-reboot -display none \
  -kernel "$work/vmlinuz" -initrd "$work/initrd" \
  -append "root=/dev/vda rw console=ttyS0 mitigations=off nokaslr quiet panic=-1 audit=0 apparmor=0" \
  -drive file="$work/root.img",if=virtio,format=raw,cache=unsafe \
  -nic "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:$port-:22" \
  -device virtio-rng-pci -serial file:"$work/console.log" </dev/null &
machine=$!
inside() {
  ssh -q -p "$port" -i "$work/key" -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
    -o ConnectTimeout=10 root@127.0.0.1 "$@"
}
begun=$SECONDS
until inside true; do
  kill -0 "$machine" || { tail -20 "$work/console.log" >&2; echo "the machine ended while it started" >&2; exit 1; }
  [ $((SECONDS - begun)) -lt 600 ] || { tail -20 "$work/console.log" >&2; echo "no ssh after 10 minutes" >&2; exit 1; }
  sleep 2
done

echo "== a cluster of one node with Herald in it (about 15 minutes)"
inside bash -es <<EOF
export HERALD_LAB_CACHE='$cache' HERALD_LAB_WAIT_FACTOR=40
cd '$checkout'
uname -sr
cat /proc/self/cgroup
lab=target/herald/herald-lab
\$lab up --nodes 1
\$lab load target/image/herald.tar
\$lab load target/image/echo.tar
\$lab kubectl apply -k deploy/herald
\$lab kubectl rollout status -n herald-system deployment/herald-controller --timeout=900s
\$lab kubectl rollout status -n herald-system daemonset/herald-speaker --timeout=900s
\$lab run cgroup-v2 first-light
\$lab down
EOF
echo "== passed"
