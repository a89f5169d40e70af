# Sourced by deploy/up and tests/run: finds a Python, makes .venv from a lock file, installs what Debian or Ubuntu lacks.
# Kept true: nothing unlocked is downloaded into .venv, no service is started, and what is already there costs no time.

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

root_at_hand() { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

installed() { dpkg-query --show --showformat '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

# packages NAME...: those that are missing, by apt.
packages() {
    local name missing=()
    for name in "$@"; do
        installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null || fail "These are missing, and there is no apt-get to install them with: ${missing[*]}"
    root_at_hand || fail "Some system packages are missing. Type this, then run the command again:" \
        "  sudo apt-get install --yes --no-install-recommends ${missing[*]}"
    say "Installing system packages: ${missing[*]}"
    # Debian starts the services of what it installs unless this file says no (/usr/share/doc/init-system-helpers/README.policy-rc.d).
    local policy=/usr/sbin/policy-rc.d ours=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        ours=yes
    fi
    local result=0
    {
        as_root apt-get -qq -o DPkg::Lock::Timeout=300 update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "${missing[@]}" >/dev/null
    } || result=$?
    [ -n "$ours" ] && as_root rm -f "$policy"
    [ "$result" = 0 ] || fail "apt-get could not install: ${missing[*]}"
}

# find_python: prints one that is 3.11 or newer. The distribution's go first: they are built with profile-guided optimisation, which
# one compiled at home often is not.
find_python() {
    local python
    for python in /usr/bin/python3 /usr/bin/python3.1[1-9] python3 python3.1{1,2,3,4,5}; do
        if command -v "$python" >/dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    fail "Python 3.11 or newer is needed." "On Debian 12, Ubuntu 24.04 and newer: sudo apt-get install python3 python3-venv"
}

# environment LOCK [PIP OPTION...]: .venv with exactly what the lock file says; quick when it was made from the same one before.
environment() {
    local lock=$1 stamp python version
    shift
    stamp=".venv/.made-from-$(sha256sum "$lock" | cut -c1-16)"
    [ -e "$stamp" ] && .venv/bin/python -c '' 2>/dev/null && return
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        # Debian and Ubuntu keep ensurepip in a package of its own.
        "$python" -c 'import ensurepip' 2>/dev/null || packages "python$version-venv"
        say "Making .venv with $python ($version)"
        "$python" -m venv --clear .venv
    fi
    say "Installing what $lock names"
    .venv/bin/python -m pip --disable-pip-version-check --no-input --quiet install --require-hashes --only-binary :all: "$@" -r "$lock"
    touch "$stamp"
}

# native_sender: the part of the fan-out in C. Without a compiler or Python's headers the gateway does the same in Python.
native_sender() { .venv/bin/python -m protocols.webrtc.native.build >/dev/null || say "Going on with Python alone, at more CPU for each viewer"; }

# player: hls.js for the watch page, from npm by its lock; without npm the page plays HLS where the browser itself can.
player() {
    local made=gateway/web/hls.min.js folder result=0
    [ "$made" -nt deploy/web/package-lock.json ] && return
    command -v npm >/dev/null || { say "No npm here: the watch page has no HLS player of its own"; return 0; }
    say "Installing what deploy/web/package-lock.json names"
    folder=$(mktemp -d)
    cp deploy/web/package.json deploy/web/package-lock.json "$folder"
    (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --silent) || result=$?
    # In one step, and with the time of now: npm keeps those of the archive
    [ "$result" = 0 ] && cp "$folder/node_modules/hls.js/dist/hls.min.mjs" "$made.new" && sed -i '/^\/\/# sourceMappingURL=/d' "$made.new" && mv "$made.new" "$made"
    rm -rf "$folder"
    [ "$result" = 0 ] || say "npm could not install it: the watch page has no HLS player of its own"
}
