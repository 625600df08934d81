#!/usr/bin/env bash
# Proves install.sh in a throw-away Debian with systemd as process 1: plan, apply, a call, a second run, the memory limit, a
# model's update, a crash, a hang, a revert.
#
#   sudo tests/jetson/in_debian_root.sh online            from this checkout, packages from the index
#   sudo tests/jetson/in_debian_root.sh offline BUNDLE    from a bundle, in a root without any network
#   sudo tests/jetson/in_debian_root.sh tune              tune.sh on stand-ins for a Jetson and a Raspberry Pi
#
# Needs debootstrap and systemd-nspawn. PROOF_WHEELS is a folder with a llama-cpp-python wheel for this processor (else it is
# compiled in there), PROOF_MODEL a GGUF file (online). PROOF_DIR keeps the base system between runs. The installed system lies
# in an overlay over it, so what --revert leaves behind is what lies in the overlay afterwards.

set -eEuo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=${PROOF_DIR:-/var/tmp/smoltools-edge-proof}
wheels=${PROOF_WHEELS:-}
suite=${PROOF_SUITE:-bookworm}
port=${PROOF_PORT:-8080}
patience=${PROOF_PATIENCE:-1} # more, where others keep the processors busy
skip=${PROOF_SKIP:-} # of: limit update crash hang
mode=${1:-}
leader=''
nspawn=''
memory_group=''

step() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

inside() { nsenter -t "$leader" -a env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin ${PIP_CERT:+PIP_CERT="$PIP_CERT"} "$@"; }

# Offline, the image must have Python and the OpenMP library, as those of the boards do; python3-venv it need not have.
make_base() {
    local packages=systemd,systemd-sysv,dbus,ca-certificates
    base=$work/base-$suite-online
    if [[ $mode == offline ]]; then
        base=$work/base-$suite-offline
        packages+=,python3,libgomp1
    fi
    [[ -e $base/made ]] && return
    rm -rf "$base"
    debootstrap --variant=minbase --include="$packages" "$suite" "$base" >"$work/debootstrap.log"
    rm -f "$base"/var/cache/apt/archives/*.deb
    touch "$base/made"
}

boot() {
    rm -rf "$work/upper" "$work/work"
    mkdir -p "$work/upper" "$work/work" "$work/root"
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/work" "$work/root"
    local options=(--bind-ro="$checkout:/src")
    [[ -d /run/systemd/system ]] || options+=(--register=no --keep-unit)
    [[ $mode == offline ]] && options+=(--private-network --bind-ro="$bundle:/bundle")
    [[ $mode == online && ${PIP_CERT:-} ]] && options+=(--bind-ro="$PIP_CERT")
    [[ $wheels ]] && options+=(--bind-ro="$wheels:/wheels")
    [[ ${PROOF_MODEL:-} ]] && options+=(--bind-ro="$(readlink -f "$PROOF_MODEL"):/model/$(basename "$PROOF_MODEL")")
    # With cgroups v1 it has the memory controller in a group of its own, which goes away with it.
    if [[ -d /sys/fs/cgroup/memory ]]; then
        memory_group=/sys/fs/cgroup/memory/smoltools-edge-proof-$$
        mkdir "$memory_group"
    fi
    (
        [[ ! $memory_group ]] || echo "$BASHPID" >"$memory_group/cgroup.procs"
        exec systemd-nspawn -q -D "$work/root" --boot "${options[@]}" </dev/null >"$work/console.log" 2>&1
    ) &
    nspawn=$!
    for _ in $(seq 100); do
        leader=$(pgrep -x systemd -P "$nspawn" | head -n 1 || true)
        [[ $leader ]] && inside systemctl is-system-running --quiet 2>/dev/null && break
        sleep 0.3
    done
    [[ $leader ]] || fail "systemd does not come up: $(tail -n 3 "$work/console.log")"
    [[ ! $memory_group ]] || give_memory_controller
    # The files of a first boot (machine id, random seed, journal) are no doing of install.sh.
    changed_files >"$work/before"
}

# nspawn mounts the controllers of cgroups v1 read-only, and systemd looks for them when it starts.
give_memory_controller() {
    inside mount -o remount,rw,bind /sys/fs/cgroup/memory
    inside systemctl daemon-reexec
}

stop() {
    [[ $leader ]] && inside systemctl poweroff --force 2>/dev/null
    [[ ! $nspawn ]] || wait "$nspawn" 2>/dev/null || true
    umount "$work/root" 2>/dev/null || true
    [[ ! $memory_group ]] || find "$memory_group" -depth -type d -exec rmdir {} + 2>/dev/null
}
trap 'stop || true' EXIT

# Everything in the overlay that the base does not have just so (a folder is there when its contents changed, too) but caches,
# backups of the user lists, logs, package lists and the package database, which is compared by its list.
changed_files() {
    (cd "$work/upper" && find . \( -path './var/cache/*' -o -path './var/log/*' -o -path './var/lib/apt/*' -o -path './var/lib/dpkg/*' \
        -o -path './tmp/*' -o -path './var/tmp/*' -o -path './var/lib/systemd/*' -o -path './run/*' -o -path './etc/*-' -o -path './etc/ld.so.cache' \) -prune -o -print | while read -r name; do
        [[ -d $name && -d $base/$name ]] || cmp -s "$name" "$base/$name" || printf '%s\n' "$name"
    done | sort)
    inside dpkg -l | awk '/^ii/ { print "package " $2 }' | sort
}

answer() {
    inside /opt/smoltools-edge/venv/bin/python - "$port" <<'PYTHON'
import json, sys, urllib.request
tool = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
body = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "tools": [tool], "tool_choice": "required"}
url = f"http://127.0.0.1:{sys.argv[1]}/v1/chat/completions"
request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
answer = json.load(urllib.request.urlopen(request, timeout=300))
call = answer["choices"][0]["message"]["tool_calls"][0]["function"]
assert call["name"] == "get_weather" and isinstance(json.loads(call["arguments"])["city"], str), answer
print(answer["model"], call["name"], call["arguments"])
PYTHON
}

install_arguments() {
    if [[ $mode == online ]]; then
        installer=(/src/jetson/install.sh --model "/model/$(basename "$PROOF_MODEL")" ${wheels:+--wheels /wheels})
    else
        installer=(/bundle/install.sh)
    fi
}

property() { inside systemctl show smoltools-edge -P "$1"; }

prove() {
    local name
    prove_plan
    prove_apply
    prove_second_apply
    for name in limit update crash hang; do
        if [[ " $skip " == *" $name "* ]]; then step "left out: $name"; else "prove_$name"; fi
    done
    step "systemd-analyze"
    inside systemd-analyze verify --man=no smoltools-edge.service && echo "verify: nothing to say"
    inside systemd-analyze security --no-pager smoltools-edge.service | tail -n 1
    prove_revert
}

prove_plan() {
    step "plan: changes nothing"
    inside "${installer[@]}"
    changed_files | diff "$work/before" - || fail "the plan changed something"
}

prove_apply() {
    step "apply"
    inside "${installer[@]}" --apply
    [[ $(property ActiveState) == active ]] || fail "the service is $(property ActiveState)"

    step "the service: its user, its limits, a call"
    inside systemctl status smoltools-edge --no-pager --lines 5
    inside ps -o user:16,pid,args -p "$(property MainPID)" 2>/dev/null || inside cat "/proc/$(property MainPID)/status" | grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):'
    printf 'User=%s MemoryMax=%s StatusText=%s\n' "$(property User)" "$(property MemoryMax)" "$(property StatusText)"
    [[ $(property User) == smoltools-edge && $(property MemoryMax) -gt 100000000 ]] || fail "not the user or not the limit"
    answer
    inside du -sh /opt/smoltools-edge | sed 's/$/ with all packages/'
}

prove_second_apply() {
    local pid
    step "a second apply: nothing to do, the service is left alone"
    pid=$(property MainPID)
    inside "${installer[@]}" --plan | grep -E '^ *[0-9]+\.'
    if [[ $mode == online ]]; then inside /src/jetson/install.sh --apply; else inside "${installer[@]}" --apply; fi
    [[ $(property MainPID) == "$pid" ]] || fail "the second apply restarted the service"
}

prove_crash() {
    local pid
    step "a crash: started again; a crash loop: ends in failed"
    pid=$(property MainPID)
    inside sh -c "kill -SEGV $pid"
    wait_for "[[ \$(property MainPID) != $pid && \$(property ActiveState) == active ]]" 90 || fail "not started again"
    answer
    printf 'restarts: %s\n' "$(property NRestarts)"
    inside sh -c 'echo SMOLTOOLS_EDGE_MODEL=/nowhere.gguf >>/etc/smoltools-edge/environment'
    inside sh -c "kill -SEGV $(property MainPID)"
    wait_for "[[ \$(property ActiveState) == failed ]]" 120 || fail "a crash loop is not seen as failed: $(property ActiveState)"
    inside systemctl --failed --no-legend --no-pager
    inside journalctl -u smoltools-edge -o cat --no-pager -n 4
    inside sed -i '/nowhere/d' /etc/smoltools-edge/environment
    inside systemctl reset-failed smoltools-edge
    inside systemctl start smoltools-edge
}

prove_hang() {
    local pid
    step "a process that hangs: ended by the watchdog, started again"
    pid=$(property MainPID)
    inside sh -c "kill -STOP $pid"
    wait_for "[[ \$(property MainPID) != $pid && \$(property ActiveState) == active ]]" 180 || fail "the watchdog did nothing"
    inside journalctl -u smoltools-edge --no-pager -o cat | grep -i watchdog | tail -n 2
}

prove_revert() {
    step "revert: nothing is left"
    inside "${installer[0]}" --revert
    changed_files | diff "$work/before" - || fail "the revert left something"
    echo "the system is as it was"
}

# Of the service, in cgroups v1 or v2: memory_file FILE_OF_V1 FILE_OF_V2.
memory_file() {
    local group=system.slice/smoltools-edge.service
    inside sh -c "cat /sys/fs/cgroup/memory/$group/$1 2>/dev/null || cat /sys/fs/cgroup/$group/$2"
}

prove_limit() {
    local limit
    step "MemoryMax: the kernel has it, and ends a service that takes more"
    limit=$(memory_file memory.limit_in_bytes memory.max)
    printf 'limit %s, highest use until now %s\n' "$limit" "$(memory_file memory.max_usage_in_bytes memory.peak)"
    ((limit == $(property MemoryMax) / 4096 * 4096)) || fail "the kernel's limit is not MemoryMax"
    drop_in "ExecStartPre=/opt/smoltools-edge/venv/bin/python -c 'len(b\"x\" * $((limit + 200000000)))'"
    inside systemctl restart smoltools-edge 2>/dev/null && fail "more than the limit was given"
    inside journalctl -u smoltools-edge -o cat --no-pager | grep -E 'status=9/KILL|oom-kill' | tail -n 1 || fail "something else ended it"
    no_drop_in
    inside systemctl restart smoltools-edge
    answer
}

# As `systemctl edit` writes one: drop_in LINE.
# shellcheck disable=SC2016
drop_in() {
    inside sh -ec 'mkdir -p /run/systemd/system/smoltools-edge.service.d
        printf "%s\n" "[Service]" "$1" >/run/systemd/system/smoltools-edge.service.d/90-proof.conf
        systemctl daemon-reload' sh "$1"
}
no_drop_in() {
    inside sh -ec 'rm -r /run/systemd/system/smoltools-edge.service.d; systemctl daemon-reload; systemctl reset-failed smoltools-edge'
}

prove_update() {
    local models=/var/lib/smoltools-edge/models limits=/etc/systemd/system/smoltools-edge.service.d/10-memory.conf before
    local update=(inside /opt/smoltools-edge/venv/bin/smoltools-edge update-model)
    inside sh -c "cp \$(readlink -f $models/current) /tmp/other.gguf; cp /tmp/other.gguf /tmp/sick.gguf; head -c 3000000 /tmp/other.gguf >/tmp/broken.gguf"

    step "update-model: a broken file is refused, the service is left alone"
    before=$(property MainPID)
    "${update[@]}" /tmp/broken.gguf && fail "a broken model was taken"
    [[ $(property MainPID) == "$before" ]] || fail "the service was restarted"

    step "update-model: one with which the service does not start is taken back"
    before=$(inside readlink $models/current)$(inside cat $limits)
    drop_in "ExecStartPre=/bin/sh -c '! readlink $models/current | grep sick'"
    "${update[@]}" /tmp/sick.gguf && fail "a model was kept with which the service does not start"
    [[ $before == "$(inside readlink $models/current)$(inside cat $limits)" ]] || fail "link or limit is another"
    no_drop_in
    answer | grep -v '^sick '

    step "update-model: a good one is served, --back brings the old one"
    "${update[@]}" /tmp/other.gguf
    answer | grep '^other '
    inside head -n 1 $limits
    "${update[@]}" --back
    answer | grep -v '^other '
    inside rm /tmp/broken.gguf /tmp/other.gguf /tmp/sick.gguf
}

# Files that make the root look like a board. The kernel's own folders are covered by empty ones.
be_board() {
    inside umount /sys/firmware /sys/class /sys/devices/system/cpu /proc/pressure 2>/dev/null || true
    # shellcheck disable=SC2016
    inside sh -ec '
        for folder in /sys/firmware /sys/class /sys/devices/system/cpu /proc/pressure; do
            [ ! -d "$folder" ] || mount -t tmpfs tmpfs "$folder"
        done
        mkdir -p /sys/firmware/devicetree/base /sys/class/hwmon/hwmon0 /sys/devices/system/cpu/cpufreq/policy0
        printf "%s\0" "$1" >/sys/firmware/devicetree/base/model
        printf "%s\0" "$2" >/sys/firmware/devicetree/base/compatible
        echo pwmfan >/sys/class/hwmon/hwmon0/name
        echo ondemand >/sys/devices/system/cpu/cpufreq/policy0/scaling_governor' sh "$@"
}

be_pi() {
    be_board "Raspberry Pi 5 Model B Rev 1.0" "raspberrypi,5-model-b"
    inside sh -ec 'mkdir -p /boot/firmware
        echo "console=tty1 root=PARTUUID=1 rootwait" >/boot/firmware/cmdline.txt
        printf "%s\n" "[all]" "arm_boost=1" >/boot/firmware/config.txt'
}

be_jetson() {
    be_board "NVIDIA Jetson Orin Nano Developer Kit" "nvidia,p3767-0005"
    # shellcheck disable=SC2016
    inside sh -ec 'mkdir -p /var/lib/nvpmodel
        echo "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic" >/etc/nv_tegra_release
        printf "%s\n" "< POWER_MODEL ID=0 NAME=15W >" "< POWER_MODEL ID=1 NAME=25W >" >/etc/nvpmodel.conf
        echo pmode:0000 >/var/lib/nvpmodel/status
        printf "%s\n" "<FAN 1>" "FAN_PROFILE quiet {" "FAN_PROFILE cool {" "  FAN_DEFAULT_PROFILE quiet" >/etc/nvfancontrol.conf
        printf "%s\n" "[Service]" "ExecStart=/bin/sleep infinity" >/etc/systemd/system/nvfancontrol.service
        cat >/usr/sbin/nvpmodel <<"PROGRAM"
#!/bin/sh
if [ "$1" = -m ]; then echo "pmode:000$2" >/var/lib/nvpmodel/status; fi
grep -q 0001 /var/lib/nvpmodel/status && echo "NV Power Mode: 25W" || echo "NV Power Mode: 15W"
PROGRAM
        chmod +x /usr/sbin/nvpmodel; systemctl daemon-reload; systemctl start nvfancontrol'
}

# The files that tune.sh may touch, and their contents.
# shellcheck disable=SC2016
tuned_files() {
    inside sh -c 'for folder in /boot /etc /var/lib/nvpmodel; do
            [ ! -d "$folder" ] || find "$folder" -type f ! -name "*-" -exec sha256sum {} +
        done | sort -k 2
        readlink /etc/systemd/system/default.target || echo "no default.target"
        echo "$(cat /sys/devices/system/cpu/cpufreq/policy0/scaling_governor)"'
}

prove_tune() {
    local board
    for board in pi jetson; do
        step "$board: plan, apply, again, revert"
        "be_$board"
        tuned_files >"$work/before"
        inside /src/jetson/tune.sh --skip swap
        tuned_files | diff "$work/before" - || fail "the plan changed something"
        inside /src/jetson/tune.sh --skip swap --apply
        tuned_files | diff "$work/before" - || true
        inside /src/jetson/tune.sh --skip swap | grep -q "All of it is done" || fail "something is left to do"
        inside /src/jetson/tune.sh --revert
        tuned_files | diff "$work/before" - || fail "the revert left something"
        echo "as it was"
    done
}

wait_for() {
    local end=$((SECONDS + $2 * patience))
    while ((SECONDS < end)); do
        eval "$1" && return
        sleep 1
    done
    return 1
}

case $mode in
    online) [[ ${PROOF_MODEL:-} ]] || fail "PROOF_MODEL must name a GGUF file" ;;
    tune) ;;
    offline) bundle=$(cd "${2:?the folder of a bundle}" && pwd) ;;
    *) fail "online, offline BUNDLE or tune" ;;
esac
mkdir -p "$work"
make_base
boot
if [[ $mode == tune ]]; then
    prove_tune
else
    install_arguments
    prove
fi
step "all of it holds ($mode, $suite)"
