# shellcheck shell=bash
# What install.sh and tune.sh share: the board's facts, and changes that are planned, applied and reverted.
#
# A change NAME is four functions: NAME_plan prints what it does and how it is undone; NAME_done tells whether nothing is
# left to do; NAME_apply does it; NAME_undo takes back what is recorded of it. A change is recorded before it is made, so that
# an interrupted one can be reverted, too; so NAME_undo must do with half of it. Changes that were in place before are not recorded.

records=/var/lib/smoltools-edge-setup
record_file= # set by the script
mode=plan # or apply, revert
root= # a recorded device tree to plan for; empty: this machine

say() { printf '%s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# --- arguments ---

# A script has set_flag NAME and set_option NAME VALUE, which are false for what is not theirs.
parse_arguments() {
    while (($#)); do
        case $1 in
            --plan | --apply | --revert) mode=${1#--} ;;
            -h | --help)
                usage
                exit
                ;;
            *)
                if ! set_flag "$1"; then
                    [[ $1 == --root ]] || set_option "$1" "${2-}" || no_option "$1"
                    (($# > 1)) || die "$1 needs a value; see --help"
                    [[ $1 != --root ]] || root=${2%/}
                    shift
                fi
                ;;
        esac
        shift
    done
    [[ ! $root || -d $root/proc ]] || die "$root holds no proc; --root takes a recorded device tree"
}
no_option() {
    printf 'error: %s is no option; allowed are the ones that --help shows\n' "$1" >&2
    exit 2
}
# What stands at the top of the script.
usage() { sed -nE '2,/^$/ s/^# ?//p' "$0"; }

# --- facts, read as the program's `profiles` room does; it is not there before it is installed ---

# The first line, of a text that is read to its end: `head` would kill whoever still writes, and pipefail end the script.
first() { sed -n 1p; }
fact() { tr -d '\0' 2>/dev/null <"$root/$1" || true; }

read_board() {
    model=$(fact proc/device-tree/model)
    [[ $model ]] || model=$(fact sys/firmware/devicetree/base/model)
    compatible=$(fact proc/device-tree/compatible)$(fact sys/firmware/devicetree/base/compatible)
    l4t=$(fact etc/nv_tegra_release | sed -nE 's/^# R([0-9]+) \(release\), REVISION: ([0-9.]+).*/\1.\2/p')
    case $model$compatible$l4t in
        *nvidia,tegra* | *Jetson*) kind=jetson ;;
        *"Raspberry Pi"*) kind=raspberry-pi ;;
        *) kind=other ;;
    esac
    [[ $kind == other && $l4t ]] && kind=jetson
    n_cores=$(grep -c '^processor' "$root/proc/cpuinfo" || true)
    mem_total_mib=$(meminfo MemTotal)
    mem_available_mib=$(meminfo MemAvailable)
    features=$(sed -nE 's/^(Features|flags)[[:space:]]*: //p' "$root/proc/cpuinfo" | first)
    os_name=$(fact etc/os-release | sed -nE 's/^PRETTY_NAME="?([^"]*)"?/\1/p')
}

meminfo() { awk -v name="$1:" '$1 == name { print int($2 / 1024) }' "$root/proc/meminfo"; }

has_feature() { [[ " $features " == *" $1 "* ]]; }

describe_board() {
    say "board      ${model:-no device tree: not a Jetson or a Raspberry Pi}"
    [[ $kind != jetson ]] || say "           L4T ${l4t:-unknown}, $(jetpack)"
    say "           $n_cores cores, $mem_total_mib MiB, $mem_available_mib MiB available"
    [[ ! $os_name ]] || say "system     $os_name"
}

jetpack() {
    case $l4t in
        36.*) say "JetPack 6" ;;
        38.* | 39.*) say "JetPack 7" ;;
        *) say "JetPack unknown" ;;
    esac
}

# --- changes ---

n_to_do=0
note= # what a plan's reader should know besides

plan_or_apply() {
    say
    if [[ $mode == plan ]]; then
        plan_changes "$@"
        [[ ! $note ]] || say "note: $note"
        say
        if ((n_to_do)); then say "Nothing was changed. To do it: sudo $0 --apply"; else say "All of it is done."; fi
    else
        need_root
        apply_changes "$@"
        say
    fi
}

plan_changes() {
    local name number=0
    for name in "$@"; do
        number=$((number + 1))
        if "${name}_done"; then
            say "$(printf '%2d' "$number"). $name: nothing to do"
        else
            n_to_do=$((n_to_do + 1))
            say "$(printf '%2d' "$number"). $name: $("${name}_plan")"
        fi
    done
}

apply_changes() {
    local name
    mkdir -p "$records"
    for name in "$@"; do
        if "${name}_done"; then
            say "$name: nothing to do"
            continue
        fi
        say "$name: $("${name}_plan" | first)"
        current=$name
        "${name}_apply"
    done
    current=
}

# Remembers what NAME_undo needs: record NAME [DETAIL]. Once is enough.
record() {
    local line="$1"$'\t'"${2-}"
    grep -qxF -- "$line" "$record_file" 2>/dev/null || printf '%s\n' "$line" >>"$record_file"
}

revert_changes() {
    local name detail
    [[ -s $record_file ]] || {
        say "Nothing is recorded in $record_file, so there is nothing to take back."
        return
    }
    while IFS=$'\t' read -r name detail <&3; do
        say "$name: taking back ${detail:-what was made}"
        current=$name
        "${name}_undo" "$detail"
    done 3< <(tac "$record_file")
    current=
    rm -f "$record_file"
    rmdir --ignore-fail-on-non-empty "$records"
}

is_booted() { [[ ! $root && -d /run/systemd/system ]]; }

need_root() {
    [[ ! $root ]] || die "$root is a recorded device: a plan can be made for it, and nothing applied or reverted"
    [[ $(id -u) == 0 ]] || die "this changes the system: run it with sudo"
}

current=
on_error() {
    local code=$?
    if [[ $current ]]; then
        printf 'error: the change "%s" failed and nothing after it was done; mend it and run --apply again, or --revert\n' \
            "$current" >&2
    fi
    exit "$code"
}
trap on_error ERR
