#!/usr/bin/env bash
# Tunes memory, power and cooling of a Jetson or a Raspberry Pi for a model that is served all day.
#
#   ./tune.sh                        prints what it would change, what each is worth and by whose word; changes nothing
#   sudo ./tune.sh --apply           changes it; a second run does what is left
#   sudo ./tune.sh --revert          takes back what --apply did
#
#   --skip NAME         leaves a change out: desktop, swap, caches, power, governor, psi, fan; repeatable
#   --power-mode NAME   Jetson: this mode of `nvpmodel -p --verbose`; default: 25W where there is one
#   --root DIR          plan for the device recorded below DIR
#
# Takes seconds. It never reboots and never turns off nvargus-daemon, nvgetty, nvpmodel or docker.

set -eEuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=board.sh
source "$here/board.sh"

record_file=$records/tune
drop_in=/etc/systemd/system/smoltools-edge.service.d/30-drop-caches.conf
zram_unit=/etc/systemd/system/smoltools-edge-zram.service
tmpfiles=/etc/tmpfiles.d/smoltools-edge-governor.conf
power_mode='' skipped=' '

set_flag() { return 1; }
set_option() {
    case $1 in
        --skip) skipped+="$2 " ;;
        --power-mode) power_mode=$2 ;;
        *) return 1 ;;
    esac
}

# --- desktop ---

default_target() {
    local link
    for link in "$root/etc/systemd/system/default.target" "$root/usr/lib/systemd/system/default.target"; do
        [[ -L $link ]] && basename "$(readlink "$link")" && return
    done
    say unknown
}
desktop_done() { [[ $(default_target) != graphical.target ]]; }
desktop_plan() {
    say "boots without the desktop (multi-user.target) from the next boot on; now: sudo systemctl isolate multi-user.target"
    say "      worth:  about 800 MB (Jetson AI Lab), up to 865 MB (NVIDIA skills, jetson-headless-mode, 2026-08)"
    say "      undone: the link default.target as before"
}
desktop_apply() {
    record desktop "$(readlink /etc/systemd/system/default.target || say none)"
    systemctl --quiet set-default multi-user.target
}
desktop_undo() {
    if [[ $1 == none ]]; then rm -f /etc/systemd/system/default.target; else systemctl --quiet set-default "$(basename "$1")"; fi
}

# --- swap: a file on NVMe, or zram where there is neither NVMe nor any swap ---

# A folder on NVMe that is there at boot.
nvme_folder() {
    awk '$1 ~ /^\/dev\/nvme/ && $4 ~ /^rw/ && $2 !~ /^\/boot/ { print ($2 == "/" ? "/var" : $2) }' <(fact proc/mounts) | first
}
disk_swap() { awk 'NR > 1 && $1 !~ /zram/ { n += $3 } END { print int(n / 1024) }' <(fact proc/swaps); }
zram_swap() { awk 'NR > 1 && $1 ~ /zram/ { n += $3 } END { print int(n / 1024) }' <(fact proc/swaps); }

swap_done() {
    if [[ $(nvme_folder) ]]; then (($(disk_swap) >= 4096)); else (($(disk_swap) + $(zram_swap) > 0)); fi
}
swap_plan() {
    local folder
    folder=$(nvme_folder)
    if [[ $folder ]]; then
        say "a swap file of 8 GiB, $folder/smoltools-edge.swap; on a Jetson zram off (nvzramconfig) from the next boot on"
        say "      worth:  what lies in zram is memory too; NVIDIA's advice for models on 8 GB (Jetson AI Lab, RAM optimization)"
        say "      undone: swapoff, the file and its line in /etc/fstab removed, zram on"
    else
        say "zram of $(zram_size_mib) MiB: there is no swap, and no NVMe for one"
        say "      worth:  idle daemons shrink to about a third; a model's weights do not go there (not measured)"
        say "      undone: swapoff, $zram_unit removed"
    fi
}
zram_size_mib() { say $((mem_total_mib / 2 > 4096 ? 4096 : mem_total_mib / 2)); }
swap_apply() {
    local file
    if [[ ! $(nvme_folder) ]]; then
        record swap zram
        zram_service >$zram_unit
        systemctl daemon-reload
        systemctl --quiet enable --now smoltools-edge-zram.service
        return
    fi
    file=$(nvme_folder)/smoltools-edge.swap
    record swap "$file"
    fallocate -l 8G "$file"
    chmod 600 "$file"
    mkswap "$file" >/dev/null
    swapon "$file"
    grep -q "^$file " /etc/fstab || printf '%s none swap sw,pri=10 0 0\n' "$file" >>/etc/fstab
    if [[ $kind == jetson ]] && systemctl --quiet is-enabled nvzramconfig 2>/dev/null; then
        record zram_config
        systemctl --quiet disable nvzramconfig
    fi
}
swap_undo() {
    if [[ $1 == zram ]]; then
        systemctl --quiet disable --now smoltools-edge-zram.service 2>/dev/null || true
        rm -f $zram_unit
        systemctl daemon-reload
        return
    fi
    swapoff "$1" 2>/dev/null || true
    sed -i "\|^$1 |d" /etc/fstab
    rm -f "$1"
}
zram_config_undo() { systemctl --quiet enable nvzramconfig; }
zram_service() {
    cat <<UNIT
[Unit]
Description=Swap in compressed memory
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStartPre=-/sbin/modprobe zram
ExecStart=/bin/sh -ec 'device=\$(zramctl --find --size $(zram_size_mib)M --algorithm lz4); mkswap "\$device"; swapon -p 100 "\$device"; echo "\$device" >/run/smoltools-edge-zram'
ExecStop=/bin/sh -c 'device=\$(cat /run/smoltools-edge-zram); swapoff "\$device"; zramctl --reset "\$device"'
[Install]
WantedBy=swap.target
UNIT
}

# --- caches: on Jetson, memory of an ended CUDA process is not seen as free before JetPack 7.2 ---

caches_done() { [[ $l4t == 39.* || -f $root$drop_in ]]; }
caches_plan() {
    say "drops the page cache before the service loads its model: $drop_in"
    say "      worth:  memory that an ended CUDA process held counts as free again; before JetPack 7.2 it does not, and the next"
    say "              model is planned too small or refused (NVIDIA skills, jetson-memory-audit). Costs: files are read again"
    say "      undone: file removed"
}
caches_apply() {
    record caches
    mkdir -p "$(dirname $drop_in)"
    printf '%s\n' '[Service]' "ExecStartPre=+/bin/sh -c 'sync; echo 3 >/proc/sys/vm/drop_caches'" >$drop_in
    ! is_booted || systemctl daemon-reload
}
caches_undo() {
    rm -f $drop_in
    rmdir "$(dirname $drop_in)" 2>/dev/null || true
    ! is_booted || systemctl daemon-reload
}

# --- power mode: numbers mean something else on each module and release, so names count ---

power_modes() { fact etc/nvpmodel.conf | sed -nE 's/^< *POWER_MODEL +ID=([0-9]+) +NAME=([^ >]+) *>.*/\1 \2/p'; }
power_now() {
    local id
    id=$(fact var/lib/nvpmodel/status | sed -nE 's/.*pmode:0*([0-9]+).*/\1/p' | first)
    power_modes | awk -v id="$id" '$1 == id { print $2 }'
}
power_id() { power_modes | awk -v name="$1" '$2 == name { print $1 }'; }
power_wanted() {
    if [[ $power_mode ]]; then say "$power_mode"; elif [[ $(power_id 25W) ]]; then say 25W; else power_now; fi
}
check_power_mode() {
    [[ ! $power_mode || $(power_id "$power_mode") ]] ||
        die "this board has no power mode $power_mode; allowed are $(power_modes | awk '{ print $2 }' | paste -sd ' ')"
}
power_done() { [[ $(power_wanted) == "$(power_now)" ]]; }
power_plan() {
    say "power mode $(power_wanted) instead of $(power_now) (nvpmodel -m $(power_id "$(power_wanted)") on this board)"
    say "      worth:  25W: 36-47 % more tokens/s than 15W, 8-35 % more tokens for a joule than MAXN_SUPER (smolhub, Orin Nano Super)"
    say "      undone: nvpmodel -m with the number of the mode before"
}
power_apply() {
    record power "$(power_now)"
    set_power "$(power_wanted)"
}
power_undo() { set_power "$1"; }
# nvpmodel asks before it reboots; nobody answers here.
set_power() {
    nvpmodel -m "$(power_id "$1")" </dev/null >/dev/null 2>&1 || true
    [[ $(nvpmodel -q 2>/dev/null) == *"$1"* ]] || say "      $1 needs a reboot: sudo nvpmodel -m $(power_id "$1")"
}

# --- governor (Raspberry Pi) ---

governors() { compgen -G "$root/sys/devices/system/cpu/cpufreq/policy*/scaling_governor" || true; }
governor_done() {
    local file
    for file in $(governors); do
        [[ $(<"$file") == performance ]] || return 1
    done
}
governor_plan() {
    say "processor clock always at its highest (governor performance), by $tmpfiles"
    say "      worth:  answers do not begin at the low clock; decoding varies by 15 % with governor and heat (bamb00boy, Pi 5). Costs: idle watts"
    say "      undone: file removed, governor as before"
}
governor_apply() {
    local file
    for file in $(governors); do
        record governor "$(<"$file")"
        printf 'w- %s - - - - performance\n' "$file"
    done >$tmpfiles
    systemd-tmpfiles --create $tmpfiles
}
governor_undo() {
    local file
    rm -f $tmpfiles
    for file in $(governors); do printf '%s' "$1" >"$file"; done
}

# --- pressure stall information (Raspberry Pi) ---

boot_file() {
    local folder
    for folder in boot/firmware boot; do
        [[ -f $root/$folder/$1 ]] && say "/$folder/$1" && return
    done
    say "/boot/firmware/$1"
}
psi_done() { [[ -e $root/proc/pressure/memory ]] || fact "$(boot_file cmdline.txt)" | grep -qw 'psi=1'; }
psi_plan() {
    say "psi=1 in $(boot_file cmdline.txt), from the next boot on"
    say "      worth:  /health and /metrics tell of memory pressure; MemAvailable alone overstates what is left (Potato OS, memory-diagnostics-pi5)"
    say "      undone: psi=1 removed"
}
psi_apply() {
    local file
    file=$(boot_file cmdline.txt)
    [[ -f $file ]] || die "there is no $file to switch it on in; leave it out with --skip psi"
    record psi "$file"
    sed -i '1 s/[[:space:]]*$/ psi=1/' "$file" # one line is all that the firmware reads
}
psi_undo() { sed -i '1 s/ psi=1\b//' "$1"; }

# --- fan ---

fan_profile() { fact etc/nvfancontrol.conf | sed -nE 's/^[[:space:]]*FAN_DEFAULT_PROFILE[[:space:]]+([^[:space:]]+).*/\1/p' | first; }
fan_done() {
    if [[ $kind == jetson ]]; then
        [[ $(fan_profile) != quiet ]] || ! fact etc/nvfancontrol.conf | grep -q 'FAN_PROFILE[[:space:]]*cool'
    else
        ! has_pi_fan || fact "$(boot_file config.txt)" | grep -q 'fan_temp0='
    fi
}
has_pi_fan() { [[ $model == *"Pi 5"* ]] && grep -qsx pwmfan "$root"/sys/class/hwmon/hwmon*/name; }
fan_plan() {
    if [[ $kind == jetson ]]; then
        say "fan profile cool instead of quiet, /etc/nvfancontrol.conf"
        say "      worth:  later throttling, and noise; how much was not measured (at 25 W the junction stays below 73 C: smolhub)"
    else
        say "fan from 45 C on and at full speed from 65 C, $(boot_file config.txt), from the next boot on"
        say "      worth:  later throttling (it begins at 80 C), and noise; the default begins at 50 C, full speed at 75 C (raspberrypi/linux, overlays/README)"
    fi
    say "      undone: as before"
}
fan_apply() {
    if [[ $kind == jetson ]]; then
        record fan quiet
        set_fan_profile quiet cool
    else
        record fan "$(boot_file config.txt)"
        cat >>"$(boot_file config.txt)" <<'CONFIG'
# smoltools-edge: fan
[all]
dtparam=fan_temp0=45000,fan_temp0_speed=100
dtparam=fan_temp1=52500,fan_temp1_speed=150
dtparam=fan_temp2=60000,fan_temp2_speed=200
dtparam=fan_temp3=65000,fan_temp3_speed=255
# smoltools-edge: end
CONFIG
    fi
}
fan_undo() {
    if [[ $1 == quiet ]]; then set_fan_profile cool quiet; else sed -i '/^# smoltools-edge: fan$/,/^# smoltools-edge: end$/d' "$1"; fi
}
# The daemon keeps its last profile in its status file, which wins over the configuration.
set_fan_profile() {
    systemctl stop nvfancontrol
    rm -f /var/lib/nvfancontrol/status
    sed -i -E "s/^([[:space:]]*FAN_DEFAULT_PROFILE[[:space:]]+)$1\b/\1$2/" /etc/nvfancontrol.conf
    systemctl start nvfancontrol
}

choose_changes() {
    local name all
    case $kind in
        jetson) all=(desktop swap caches power fan) ;;
        raspberry-pi) all=(desktop swap governor psi fan) ;;
        *) die "this is neither a Jetson nor a Raspberry Pi; there is nothing here that would tune it" ;;
    esac
    changes=()
    for name in "${all[@]}"; do
        [[ $skipped == *" $name "* ]] || changes+=("$name")
    done
    for name in $skipped; do
        [[ " desktop swap caches power governor psi fan " == *" $name "* ]] || die "$name is no change; allowed are ${all[*]}"
    done
}

main() {
    parse_arguments "$@"
    if [[ $mode == revert ]]; then
        need_root
        read_board
        revert_changes
        return
    fi
    read_board
    choose_changes
    check_power_mode
    describe_board
    [[ $kind != raspberry-pi || $model != *"Pi 5"* ]] || has_pi_fan || note="no fan is seen; all cores busy, a Pi 5 throttles without its active cooler"
    plan_or_apply "${changes[@]}"
    [[ $mode == plan ]] || say "done; what needs a boot waits for the next one"
}

main "$@"
