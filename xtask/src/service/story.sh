#!/usr/bin/env bash
# The packaged unit under a real systemd: installed, started, reloaded, restarted, killed, stopped and removed, in a container of this
# very machine. Arguments: an empty folder, and the package. Runs in a mount namespace of its own, with which all mounts end.
set -u
work=$1 package=$2
passed=0 failed=0

mount -t tmpfs -o size=1g tmpfs "$work" && mkdir "$work"/upper "$work"/work "$work"/machine "$work"/bpf || exit 2
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/machine" || exit 2
mount -t bpf bpf "$work/bpf" || exit 2
cp "$package" "$work/machine/run-enforcer.deb" || exit 2
# Another machine, as far as systemd is concerned, and none of this one's services.
systemd-id128 new >"$work/machine/etc/machine-id"
systemd-nspawn --quiet --directory="$work/machine" --register=no --keep-unit --private-network --capability=all \
    --system-call-filter="bpf perf_event_open" --bind="$work/bpf:/sys/fs/bpf" --console=pipe \
    /lib/systemd/systemd --unit=basic.target >"$work/console" 2>&1 </dev/null &
container=$!
leader=
for _ in $(seq 300); do
    leader=$(pgrep -P "$container" | head -n 1)
    [ -n "$leader" ] && nsenter -t "$leader" -a systemctl is-system-running 2>/dev/null | grep -qE "running|degraded" && break
    kill -0 "$container" 2>/dev/null || { cat "$work/console"; exit 2; }
    sleep 0.1
done
inside() { nsenter -t "$leader" -a "$@"; }
end() {
    [ "$failed" = 0 ] || inside journalctl --unit enforcer --no-pager --lines 40
    inside systemctl poweroff >/dev/null 2>&1
    wait "$container"
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
    exit
}
check() { # NAME COMMAND...
    local name=$1
    shift
    if said=$("$@" 2>&1); then
        passed=$((passed + 1)) && echo "ok      $name"
    else
        failed=$((failed + 1)) && echo "FAILED  $name"
        echo "$said" | tail -n 20 | sed 's/^/        /'
    fi
}
active() { [ "$(inside systemctl is-active enforcer)" = "${1:-active}" ]; }
pid() { inside systemctl show --property=MainPID --value enforcer; }
soon() { for _ in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; "$@"; }
attached() { inside ip -d link show dev eth0 | grep -q "prog/xdp"; }
banned() { inside enforcer ban list | grep -q 198.51.100.7; }
link() { inside bpftool link show 2>/dev/null | sed -n 's/^\([0-9]*\): xdp.*/\1/p'; }

inside ip link add eth0 type veth peer name eth1
inside ip link set eth0 up
inside ip link set eth1 up
inside ip addr add 198.18.0.1/24 dev eth0

check "the package installs" inside dpkg --install /run-enforcer.deb
inside mkdir -p /etc/enforcer/tls
inside openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=api.test \
    -addext subjectAltName=DNS:api.test -keyout /etc/enforcer/tls/api.key -out /etc/enforcer/tls/api.pem 2>/dev/null
inside openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out /etc/enforcer/token.key 2>/dev/null
point=$(inside openssl ec -in /etc/enforcer/token.key -pubout -outform DER 2>/dev/null | tail -c 64 | base64 -w 0 | tr '+/' '-_')
half() { printf %s "$point" | tr '_-' '/+' | base64 -d 2>/dev/null | "$1" -c 32 | base64 -w 0 | tr '+/' '-_' | tr -d =; }
printf '{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"a","x":"%s","y":"%s"}]}\n' \
    "$(half head)" "$(half tail)" >"$work/machine/etc/enforcer/jwks.json"
inside chown -R root:enforcer /etc/enforcer/tls /etc/enforcer/jwks.json
inside chmod 0640 /etc/enforcer/tls/api.key /etc/enforcer/jwks.json

check "the example configuration is good" inside enforcer check -c /etc/enforcer/enforcer.toml
check "start: ready is reported to systemd" inside systemctl start enforcer
check "start: active" active
# Without a process there is nothing that could be reloaded or killed.
[ "$failed" = 0 ] || end
check "start: not as root" test "$(inside stat -c %U "/proc/$(pid)")" = enforcer
check "start: the program is on the interface" attached
check "start: the daemon answers" inside enforcer status
check "a ban" inside enforcer ban add 198.51.100.7 --forever
first=$(pid) before=$(link)
check "reload" inside systemctl reload enforcer
check "reload: the same process" test "$(pid)" = "$first"
inside sed -i 's/^interfaces/interfacez/' /etc/enforcer/enforcer.toml
check "reload of a wrong file fails" eval '! inside systemctl reload enforcer'
check "reload of a wrong file: still active" active
inside sed -i 's/^interfacez/interfaces/' /etc/enforcer/enforcer.toml
check "restart" inside systemctl restart enforcer
check "restart: another process" test "$(pid)" != "$first"
check "restart: the ban is there" banned
check "restart: the same link" test "$(link)" = "$before"
killed=$(pid)
inside kill -KILL "$killed"
another() { active && [ "$(pid)" != "$killed" ]; }
check "after a kill systemd starts it again" soon another
check "after a kill the ban is there" soon banned
stopped=$(pid)
inside kill -STOP "$stopped"
woken() { active && [ "$(pid)" != "$stopped" ]; }
# WatchdogSec, and some more for a loaded machine.
slow() { for _ in $(seq 100); do "$@" && return; sleep 1; done; return 1; }
check "a daemon that hangs is started again by the watchdog" slow woken
check "stop" inside systemctl stop enforcer
check "stop: inactive" active inactive
check "stop: the program judges on" attached
inside sed -i 's/^interfaces = .*/interfaces = ["absent"]/' /etc/enforcer/enforcer.toml
check "start with a wrong configuration fails" eval '! inside systemctl start enforcer'
check "start with a wrong configuration: not tried again" eval 'inside systemctl show --property=ExecMainStatus --value enforcer | grep -qx 78 && active failed'
check "the package is removed" inside dpkg --purge enforcer
check "removed: nothing is attached" eval '! attached'
check "removed: nothing is pinned" test -z "$(ls -A "$work/bpf/enforcer" 2>/dev/null)"
end
