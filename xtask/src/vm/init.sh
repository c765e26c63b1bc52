#!/bin/busybox sh
# The first process of a guest: makes the world that tests expect, runs the steps of /steps, and says on the second
# serial line what came of each. The first line is the kernel's console, so nothing of it mixes with results.
export PATH=/usr/bin:/bin HOME=/ RUST_BACKTRACE=0 OPENSSL_CONF=/dev/null
/bin/busybox mkdir -p /bin /proc /sys /dev /run /tmp /etc
/bin/busybox --install -s /bin
mount -t devtmpfs none /dev
mount -t proc none /proc
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
mount -t sysfs none /sys
mount -t bpf none /sys/fs/bpf
mount -t tmpfs none /run
mount -t tmpfs none /tmp
exec 3>/dev/ttyS1
say() { echo "@vm $*" >&3; }

say boot "$(uname -r)"
ip link set lo up
while read -r module; do
    insmod "/modules/$module.ko" || say broken "module $module cannot be loaded"
done < /modules/order

# step NAME SECONDS COMMAND...
step() {
    name=$1
    seconds=$2
    shift 2
    say begin "$name"
    timeout -s KILL "$seconds" "$@" >&3 2>&3 </dev/null
    code=$?
    # A program that was killed may have left half a line.
    echo >&3
    say end "$code" "$name"
}
. /steps
say "done"
poweroff -f
