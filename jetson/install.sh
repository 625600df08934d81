#!/usr/bin/env bash
# Installs smoltools-edge as a service: on a Jetson Orin (JetPack 6 and 7), a Raspberry Pi (64-bit OS), Debian or Ubuntu.
#
#   ./install.sh                     prints what it would change, changes nothing
#   sudo ./install.sh --apply        changes it; stops at the first error; a second run does what is left
#   sudo ./install.sh --revert       takes back what --apply did
#
#   --bundle DIR|TAR    an offline bundle; default: this script's own folder, if it is one. Else the checkout around it.
#   --model REF         which model to serve; default: the bundle's, or what `smoltools-edge profile` picks
#   --wheels DIR        where a llama-cpp-python wheel built for this very board may lie already
#   --python FILE       this interpreter, 3.11 or newer; default: the system's
#   --cpu-only          on a Jetson: do not use its GPU
#   --keep-models       with --revert: leaves /var/lib/smoltools-edge
#   --root DIR          plan for the device recorded below DIR
#
# Takes about 3 minutes on a Raspberry Pi 5 beside the model's download if nothing needs compiling; compiling llama.cpp
# takes 10 to 20 minutes more, with CUDA 30 to 60 (estimates; no board was there to measure).

set -eEuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=board.sh
source "$here/board.sh"

record_file=$records/install
user=smoltools-edge
program=/opt/smoltools-edge
etc=/etc/smoltools-edge
state=/var/lib/smoltools-edge
units=/etc/systemd/system
unit=smoltools-edge.service
conf=$units/$unit.d/10-memory.conf
bin=$program/venv/bin

bundle='' unpacked='' model_ref='' wheels='' python='' cpu_only='' keep_models=''

set_flag() {
    case $1 in
        --cpu-only) cpu_only=1 ;;
        --keep-models) keep_models=1 ;;
        *) return 1 ;;
    esac
}
set_option() {
    case $1 in
        --bundle) bundle=$2 ;;
        --model) model_ref=$2 ;;
        --wheels) wheels=$2 ;;
        --python) python=$2 ;;
        *) return 1 ;;
    esac
}

# --- what is installed from where ---

find_source() {
    [[ ! $bundle && -f $here/SHA256SUMS ]] && bundle=$here
    if [[ $bundle ]]; then
        [[ -e $bundle ]] || die "$bundle does not exist; --bundle takes a bundle's folder or its tar file"
        [[ -d $bundle ]] || unpack_bundle
        bundle=$(cd "$bundle" && pwd)
        check_bundle
    elif [[ -f $here/../pyproject.toml ]]; then
        checkout=$(cd "$here/.." && pwd)
    else
        die "neither a bundle nor a checkout of smoltools-edge is around $here; name a bundle with --bundle"
    fi
}

unpack_bundle() {
    unpacked=$(mktemp -d /var/tmp/smoltools-edge-bundle.XXXXXX)
    trap 'rm -rf "$unpacked"' EXIT
    tar -xf "$bundle" -C "$unpacked" --no-same-owner 2>/dev/null || die "$bundle cannot be unpacked below /var/tmp; is it whole, and is there room?"
    bundle=$(dirname "$(find "$unpacked" -maxdepth 2 -name SHA256SUMS | first)")
    [[ -f $bundle/SHA256SUMS ]] || die "there is no SHA256SUMS in the tar file: it is not a bundle"
}

# Every file must be listed and as listed: an unlisted wheel would be installed like the others.
check_bundle() {
    [[ -f $bundle/SHA256SUMS ]] || die "$bundle holds no SHA256SUMS: it is not a bundle"
    (cd "$bundle" && sha256sum --check --strict --quiet SHA256SUMS >/dev/null 2>&1) ||
        die "the bundle $bundle is damaged: $(cd "$bundle" && sha256sum --check --strict SHA256SUMS 2>&1 | grep -v ': OK$' | first)"
    local unlisted
    unlisted=$(cd "$bundle" && comm -13 <(sed -E 's/^[0-9a-f]{64} [ *](\.\/)?//' SHA256SUMS | sort) \
        <(find . ! -type d ! -path ./SHA256SUMS | sed 's/^..//' | sort) | first)
    [[ ! $unlisted ]] || die "the bundle $bundle holds $unlisted, which its SHA256SUMS does not list"
}

# Of a JSON that this project writes; there may be no Python yet.
bundle_fact() { sed -nE 's/^ *"'"$1"'": "([^"]*)".*/\1/p' "$bundle/bundle.json" | first; }

is_compiled_here() {
    [[ ! $bundle ]] || ! compgen -G "$bundle/wheels/llama_cpp_python-*.whl" >/dev/null
}

# --- how llama.cpp is built for this board ---

choose_build() {
    cmake_args="-DLLAMA_OPENSSL=OFF -DCMAKE_PROJECT_llama_cpp_INCLUDE=$here/llama-cpp-minimal.cmake"
    # What is built here runs here: the compiler asks the processor. Only a wheel for other machines needs it off.
    cmake_args+=" -DGGML_NATIVE=ON"
    nvcc=$root/usr/local/cuda/bin/nvcc
    cuda=''
    if [[ $kind == jetson && ! $cpu_only ]]; then
        choose_cuda
        # Without it, CMake before 3.24 compiles for every GPU since Maxwell, which takes hours on a board.
        cmake_args+=" -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=$cuda -DCMAKE_CUDA_COMPILER=/usr/local/cuda/bin/nvcc"
    fi
    # A compiler process of ggml takes up to 1.5 GiB (CUDA); more of them than fit would be killed.
    n_jobs=$((mem_available_mib / 1536))
    n_jobs=$((n_jobs < 1 ? 1 : n_jobs > n_cores ? n_cores : n_jobs))
}

choose_cuda() {
    case ${l4t:-none}/$compatible in
        36.*/* | 38.*/* | 39.*/*) ;;
        *) die "L4T ${l4t:-of this board} is not supported; JetPack 6 (L4T 36) and 7 (L4T 38, 39) are. See jetson/README.md" ;;
    esac
    case $compatible in
        *tegra264*) cuda=110 ;; # Thor
        *tegra234*) cuda=87 ;;  # Orin
        *) die "this Jetson is not an Orin ($compatible); its GPU is not supported, --cpu-only is" ;;
    esac
}

describe_build() {
    local kernels=''
    has_feature asimddp && kernels+=" dotprod"
    has_feature i8mm && kernels+=" i8mm"
    has_feature sve && kernels+=" sve"
    has_feature avx2 && kernels+=" avx2"
    has_feature avx512f && kernels+=" avx512"
    if ! is_compiled_here; then
        say "llama.cpp  the bundle's wheel; not compiled here"
        return
    fi
    say "llama.cpp  compiled on this board, $n_jobs at a time; kernels of this processor:${kernels:- none beyond the baseline}"
    say "           GGML_NATIVE=ON: what is built here runs here alone, so the compiler may use all that it has"
    if [[ $cuda ]]; then
        say "           CUDA for SM ${cuda%?}.${cuda: -1} alone (the compiler's default would be every GPU since Maxwell)"
        [[ -x $nvcc || $root ]] || say "           but $nvcc is not there: --apply will stop. Get it: sudo apt-get install nvidia-jetpack"
    elif [[ $kind == jetson ]]; then
        say "           for the CPU alone, as asked: the GPU stays idle"
    fi
}

# --- changes ---

choose_python() {
    if [[ $python ]]; then
        is_new_enough "$python" || die "$python is not Python 3.11 or newer"
        python_packages=()
        return
    fi
    local name
    for name in ${bundle:+"python$(bundle_fact python)"} python3 python3.13 python3.12 python3.11; do
        [[ ! $root ]] && is_new_enough "$name" && python=$(command -v "$name") && break
    done
    if [[ $python ]]; then
        python_packages=("$(basename "$(readlink -f "$python")")-venv")
    elif [[ $l4t == 36.* ]] || fact etc/os-release | grep -q '^VERSION_ID="22.04"'; then # JetPack 6: python3 is 3.10
        python=/usr/bin/python3.11
        python_packages=(python3.11 python3.11-venv)
    elif [[ $root ]] || ! command -v python3 >/dev/null; then
        python=/usr/bin/python3
        python_packages=(python3 python3-venv)
    else
        die "Python 3.11 or newer is needed and $(python3 --version 2>&1 || true) is here; name another with --python"
    fi
}
# A bundle's wheels are for one Python and one kind of processor; pip would only say that it finds none.
check_bundle_fits() {
    local wanted found
    wanted=$(bundle_fact machine)
    [[ $root || ! $wanted || $wanted == "$(uname -m)" ]] || die "the bundle is for $wanted and this machine is $(uname -m); make one for it"
    wanted=$(bundle_fact python)
    found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || return 0
    [[ ! $wanted || $wanted == "$found" ]] ||
        die "the bundle is for Python $wanted and $python is $found; name another with --python, or make the bundle with --python $found"
}
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

needed_packages() {
    local packages=(libgomp1 "${python_packages[@]}")
    [[ $bundle ]] || packages+=(ca-certificates)
    ! is_compiled_here || packages+=(build-essential cmake ninja-build)
    # A wheel of pip makes python3-venv unnecessary.
    [[ ! $bundle ]] || ! compgen -G "$bundle/wheels/pip-*.whl" >/dev/null ||
        packages=("${packages[@]/*-venv/}")
    printf '%s\n' "${packages[@]}" | sed '/^$/d'
}

missing_packages() {
    local name
    needed_packages | while read -r name; do
        [[ ! $root ]] && dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || printf '%s ' "$name"
    done
}

packages_done() { [[ ! $(missing_packages) ]]; }
packages_plan() {
    say "apt-get install $(missing_packages)${root:+(those that are not there)}"
    say "      undone: apt-get purge of those, and of what came with them, unless something else needs them by then"
}
packages_apply() {
    local wanted all
    read -ra wanted <<<"$(missing_packages)"
    # Of a fresh image the package lists are old or missing; offline there is only what it has.
    [[ $bundle ]] || apt-get update -qq
    all=$(apt-get install -s --no-install-recommends "${wanted[@]}" 2>&1 | sed -nE 's/^Inst ([^ ]+).*/\1/p' | tr '\n' ' ')
    [[ $all ]] || die "apt-get finds no ${wanted[*]}; without a network they must be on the system already"
    record packages "$all"
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${wanted[@]}" >/dev/null
    is_new_enough "$python" || die "the system's $python is older than 3.11; name another with --python"
}
packages_undo() {
    local ours others
    read -ra ours <<<"$(installed_of "$1")"
    ((${#ours[@]})) || return 0
    others=$(apt-get purge -s "${ours[@]}" | sed -nE 's/^(Purg|Remv) ([^ ]+).*/\2/p' | grep -vxFf <(printf '%s\n' "${ours[@]}") | tr '\n' ' ' || true)
    if [[ $others ]]; then
        say "      left: ${ours[*]}: $others needs them now"
        return 0
    fi
    DEBIAN_FRONTEND=noninteractive apt-get purge -qq -y "${ours[@]}" >/dev/null
}
installed_of() {
    local name
    for name in $1; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' && printf '%s ' "$name"
    done || true
}

user_done() { [[ ! $root ]] && getent passwd $user >/dev/null; }
user_plan() {
    say "system user $user without a shell, home $state"
    say "      undone: userdel"
}
user_apply() {
    record user
    useradd --system --user-group --home-dir $state --no-create-home --shell /usr/sbin/nologin $user
}
user_undo() { ! getent passwd $user >/dev/null || userdel $user; }

# The program is installed anew when its source or the way to build llama.cpp has changed.
stamp() {
    if [[ $bundle ]]; then
        sha256sum <"$bundle/SHA256SUMS"
    else
        (cd "$checkout" && find edge convert profiles jetson demo/adapter demo/chat_template.jinja pyproject.toml constraints.txt -type f ! -path '*/__pycache__/*' -print0 |
            sort -z | xargs -0 sha256sum && printf '%s' "$cmake_args") | sha256sum
    fi | cut -c1-12
}

program_done() { [[ ! $root && -x $bin/smoltools-edge && $(readlink $program/venv) == "versions/$(stamp)" ]]; }
program_plan() {
    say "smoltools-edge and its packages into $program/versions, $program/venv leads to the newest"
    say "      undone: rm -r $program"
}
program_apply() {
    local new
    new=$program/versions/$(stamp)
    [[ ! $cuda || -x $nvcc || ! $(is_compiled_here && say yes) ]] ||
        die "nvcc is not at $nvcc: without it llama.cpp would be built for the CPU alone. sudo apt-get install nvidia-jetpack, or --cpu-only"
    record program
    rm -rf "$new"
    mkdir -p $program/versions
    make_venv "$new"
    if [[ $bundle ]]; then install_bundle "$new"; else install_checkout "$new"; fi
    check_build "$new"
    # In one step, so that a service that starts meanwhile finds the old program or the new one.
    ln -s "versions/$(basename "$new")" $program/venv.new
    mv -T $program/venv.new $program/venv
    find $program/versions -mindepth 1 -maxdepth 1 ! -name "$(basename "$new")" -exec rm -r {} +
}
program_undo() { rm -rf $program; }

make_venv() {
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv "$1"
    else
        "$python" -m venv --without-pip "$1"
        PYTHONPATH=$(compgen -G "$bundle/wheels/pip-*.whl" | first) "$1/bin/python" -m pip install -q --no-index --find-links "$bundle/wheels" pip
    fi
}

install_bundle() {
    local pip=("$1/bin/python" -m pip --disable-pip-version-check)
    export PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_FIND_LINKS=$bundle/wheels
    unset PIP_INDEX_URL PIP_EXTRA_INDEX_URL
    if is_compiled_here; then
        build_wheel "${pip[@]}"
        PIP_FIND_LINKS="$built $bundle/wheels"
    fi
    "${pip[@]}" install -q --only-binary :all: 'smoltools-edge[server]'
}

# Nothing but llama.cpp is compiled: where the index has no wheel of a package, pip says so instead of taking an hour.
install_checkout() {
    local pip=("$1/bin/python" -m pip --disable-pip-version-check)
    export PIP_CONSTRAINT=$checkout/constraints.txt
    if [[ $wheels ]] && compgen -G "$wheels/llama_cpp_python-*.whl" >/dev/null; then built=$wheels; else build_wheel "${pip[@]}"; fi
    "${pip[@]}" wheel -q --no-deps -w "$1/source" "$checkout"
    "${pip[@]}" install -q --only-binary :all: --find-links "$built" "$(compgen -G "$1/source/smoltools_edge-*.whl")[server]"
}

# pip's own cache does not know of CMAKE_ARGS: it would hand out a wheel that was built for the CPU alone.
build_wheel() {
    built=/var/cache/smoltools-edge/wheels/$(printf '%s' "$cmake_args" | sha256sum | cut -c1-12)
    ! compgen -G "$built/llama_cpp_python-*.whl" >/dev/null || return 0
    say "      compiling llama.cpp, $n_jobs at a time: this takes a while"
    record cache
    CMAKE_ARGS=$cmake_args CMAKE_BUILD_PARALLEL_LEVEL=$n_jobs "$@" wheel -q --no-deps --no-cache-dir --no-binary llama-cpp-python \
        -w "$built" "$(requirement)"
}
requirement() {
    if [[ $bundle ]]; then say llama-cpp-python; else grep -i '^llama-cpp-python==' "$checkout/constraints.txt"; fi
}
cache_undo() { rm -rf /var/cache/smoltools-edge; }

check_build() {
    local info
    info=$("$1/bin/python" -c 'import llama_cpp as l; print(l.llama_print_system_info().decode(), "GPU", l.llama_supports_gpu_offload())' 2>/dev/null) ||
        die "the installed llama.cpp cannot be loaded: it was built for another processor or system. $("$1/bin/python" -c 'import llama_cpp' 2>&1 | tail -n 1)"
    [[ ! $cuda || $info == *"GPU True" ]] || die "this llama.cpp cannot use the GPU although this is a Jetson; --cpu-only accepts that"
    ! has_feature asimddp || [[ $info == *"DOTPROD = 1"* ]] || say "      warning: llama.cpp was built without dotprod, which this processor has: prompts take three times as long"
}

# The service's own program, as its own user.
as_service() {
    runuser -u $user -- env HOME=$state SMOLTOOLS_EDGE_CACHE=$state HF_HOME=$state/hub NO_COLOR=1 "$@"
}

model_done() { [[ ! $root && ! $model_ref && -e $state/models/current ]]; }
model_plan() {
    local which=${model_ref:-"what \`smoltools-edge profile\` picks for this board"}
    [[ $model_ref || ! $bundle ]] || which="$(bundle_fact model), from the bundle"
    say "$which; $state/models/current leads to it"
    say "      undone: rm -r $state (with --keep-models not)"
}
model_apply() {
    local path
    record model
    install -d -o $user -g $user -m 0750 $state $state/models
    if [[ -f $model_ref ]]; then
        install -o $user -g $user -m 0640 "$model_ref" $state/models/ # the service cannot read home folders
        path=$(basename "$model_ref")
    elif [[ $model_ref || ! $bundle ]]; then
        path=$(fetch_model)
    else
        install -o $user -g $user -m 0640 "$bundle"/models/*.gguf $state/models/
        path=$(bundle_fact model)
    fi
    ln -sfn "$path" $state/models/current.new
    mv -T $state/models/current.new $state/models/current
    chown -h $user: $state/models/current
}
fetch_model() {
    local ref=$model_ref plan
    if [[ ! $ref ]]; then
        plan=$(cd / && as_service $bin/smoltools-edge profile --json)
        ref=$("$bin/python" -c 'import json, sys; plan = json.load(sys.stdin)["plan"]; print(plan["model"] + ":" + plan["quantization"])' <<<"$plan")
    fi
    say "      fetching $ref" >&2
    (cd / && as_service $bin/smoltools-edge pull "$ref")
}
model_undo() {
    if [[ $keep_models ]]; then say "      left: $state"; else rm -rf $state; fi
}

settings_done() { [[ ! $root && -f $etc/environment ]]; }
settings_plan() {
    say "$etc/environment: model, address and port; yours to edit, and kept by later runs"
    say "      undone: removed, unless it was edited"
}
settings_apply() {
    record settings
    install -d -o root -g $user -m 0750 $etc
    install -o root -g $user -m 0640 "$here/environment" $etc/environment
    sha256sum <$etc/environment >$etc/.installed
}
settings_undo() {
    if [[ -f $etc/environment && $(sha256sum <$etc/environment) != "$(cat $etc/.installed)" ]]; then
        say "      left: $etc/environment, which was edited"
    else
        rm -f $etc/environment
    fi
    rm -f $etc/.installed
    rmdir $etc 2>/dev/null || say "      left: $etc, which is not empty"
}

# The first line of 10-memory.conf, as update-model writes it: what the limit was worked out for.
conf_head() { say "# for $(readlink $state/models/current), environment $(sha256sum <$etc/environment | cut -c1-12)"; }

service_done() {
    [[ ! $root ]] && cmp -s "$here/$unit" $units/$unit && [[ -f $conf && $(head -n 1 $conf) == "$(conf_head 2>/dev/null)" ]] &&
        { ! is_booted || systemctl --quiet is-active $unit; }
}
service_plan() {
    local parts="$unit, MemoryMax from the plan"
    [[ $kind != jetson ]] || parts+=", 20-jetson.conf for the GPU's device files"
    say "$parts; enabled, started, ready when the model is loaded"
    say "      undone: systemctl disable --now, files removed; drop-ins of \`systemctl edit\` stay"
}
service_apply() {
    local memory
    record service
    # What a running service holds is not free to be planned with.
    ! is_booted || systemctl --quiet stop $unit 2>/dev/null || true
    memory=$(cd / && as_service $bin/smoltools-edge update-model --print-limit)
    mkdir -p $units/$unit.d
    install -m 0644 "$here/$unit" $units/$unit
    printf '%s\n' "$memory" >$conf
    [[ $kind != jetson ]] || install -m 0644 "$here/service-jetson.conf" $units/$unit.d/20-jetson.conf
    if ! is_booted; then
        systemctl --quiet enable $unit
        say "      systemd does not run here: the service is enabled and starts with the next boot"
        return
    fi
    systemctl daemon-reload
    systemctl --quiet enable $unit
    systemctl reset-failed $unit 2>/dev/null || true
    systemctl restart $unit || {
        journalctl -u $unit -n 15 --no-pager -o cat >&2 || true
        die "the service does not start; its last lines are above. systemctl status smoltools-edge"
    }
}
service_undo() {
    if [[ -f $units/$unit ]]; then
        if is_booted; then systemctl --quiet disable --now $unit; else systemctl --quiet disable $unit; fi
    fi
    rm -f $units/$unit $conf $units/$unit.d/20-jetson.conf
    rmdir $units/$unit.d 2>/dev/null || true
    ! is_booted || systemctl daemon-reload
}

changes=(packages user program model settings service)

main() {
    parse_arguments "$@"
    if [[ $mode == revert ]]; then
        need_root
        revert_changes
        return
    fi
    [[ ! $wheels || -d $wheels ]] || die "$wheels is not a folder; --wheels takes one with wheels in it"
    read_board
    find_source
    choose_python
    [[ ! $bundle ]] || check_bundle_fits
    choose_build
    [[ ! $bundle || $model_ref || $(bundle_fact model) || -e $state/models/current ]] ||
        die "this bundle holds no model; name one with --model FILE"
    describe_board
    if [[ $bundle ]]; then say "source     the bundle $bundle, checked against its SHA256SUMS"; else say "source     the checkout $checkout"; fi
    describe_build
    [[ $(id -u) == 0 || $root || ! -d $etc ]] || note="only root sees what is done already; run it with sudo"
    plan_or_apply "${changes[@]}"
    [[ $mode == plan ]] || say "done: systemctl status smoltools-edge; journalctl -u smoltools-edge; settings in $etc/environment"
}

main "$@"
