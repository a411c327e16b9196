#!/bin/sh
# Installs fcast from this bundle, without a network:   sh install.sh [FOLDER]
#
# FOLDER, fcast-env without it, becomes a virtual environment of its own. Run it again at any time: what is whole stays, what is
# half installed is made anew. PYTHON=/path/to/python3.11 names the interpreter.
set -eu

here=$(cd "$(dirname "$0")" && pwd -P)
mark=.fcast-bundle

fail() {
    printf 'install.sh: %s\n' "$1" >&2
    exit 1
}

case ${1:-} in
-h | --help)
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
-*) fail "expected sh install.sh [FOLDER], got $1; see sh install.sh --help" ;;
esac
[ $# -le 1 ] || fail "expected one FOLDER at most, got $*; see sh install.sh --help"
case ${1:-fcast-env} in
/*) target=${1:-} ;;
*) target=$(pwd -P)/${1:-fcast-env} ;;
esac
case ${PYTHON:-} in
[!/]*/*) PYTHON=$(pwd -P)/$PYTHON ;;
esac
cd "$here"

# Before anything of the bundle is read or run.
[ -f SHA256SUMS ] || fail "SHA256SUMS: expected it in $here, got none; the bundle is not finished: run fcast-bundle again, or copy the whole folder"
command -v sha256sum >/dev/null || fail "sha256sum: expected the command on this machine, got none; install coreutils"
echo "Checking $(wc -l <SHA256SUMS) files of the bundle $(sha256sum SHA256SUMS | cut -c 1-16)"
if ! differing=$(LC_ALL=C sha256sum --check --quiet SHA256SUMS 2>/dev/null); then
    printf '%s\n' "$differing" | while IFS= read -r line; do
        case $line in
        *": FAILED open or read") echo "install.sh: ${line%: FAILED open or read}: expected this file in the bundle, found none" ;;
        *": FAILED") echo "install.sh: ${line%: FAILED}: expected the sha256 in SHA256SUMS, found another: damaged or altered" ;;
        esac
    done >&2
    fail "nothing was installed; copy these files again from the machine that built the bundle"
fi
. ./bundle.env

found=
for candidate in ${PYTHON:+"$PYTHON"} "python$PYTHON_VERSION" python3 python; do
    version=$("$candidate" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    found="$found${found:+, }$candidate is $version"
    [ "$version" = "$PYTHON_VERSION" ] && python=$candidate && break
done
[ -n "${python:-}" ] || fail "Python: expected $PYTHON_VERSION, got ${found:-none}; install Python $PYTHON_VERSION, name it with PYTHON=/path/to/python$PYTHON_VERSION, or build the bundle with --python"
machine=$(uname -m)
[ "$machine" = "$MACHINE" ] || fail "machine: expected $MACHINE, got $machine; build the bundle with --platform linux_$machine"
glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d . -f 2) || glibc=
[ "${glibc:-0}" -ge "$GLIBC_MINOR" ] || fail "C library: expected glibc 2.$GLIBC_MINOR or newer, got ${glibc:+2.}${glibc:-another}; these wheels need a newer Linux"
"$python" -I -c 'import venv' 2>/dev/null || fail "venv: expected $python to have its module venv, got none; install it (Debian and Ubuntu: apt-get install python$PYTHON_VERSION-venv), or name another Python with PYTHON="

if [ "$CUDA" != none ]; then
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) || driver=
    lowest=$(printf '%s\n%s\n' "$DRIVER" "${driver:-0}" | sort -V | head -n 1)
    [ "$lowest" = "$DRIVER" ] || echo "Warning: NVIDIA driver: expected $DRIVER or newer for CUDA $CUDA, got ${driver:-none}; without it everything runs on the CPU: update the driver, or build the bundle with --driver ${driver:-VERSION}" >&2
fi

if [ -e "$target" ] && [ ! -e "$target/$mark" ] && [ -n "$(ls -A "$target")" ]; then
    fail "$target: expected a new or empty folder, or one that install.sh made, got another; name a new one: sh install.sh FOLDER"
fi
if cmp -s SHA256SUMS "$target/$mark" && "$target/bin/python" -I -m pip check >/dev/null 2>&1; then
    echo "Already installed in $target"
else
    above=$target
    while [ ! -d "$above" ]; do above=$(dirname "$above"); done
    free_kb=$(df -Pk "$above" | awk 'NR == 2 {print $4}')
    used_kb=0
    [ ! -e "$target/$mark" ] || used_kb=$(du -sk "$target" | cut -f 1)
    echo "Needs $(awk "BEGIN {printf \"%.1f\", $NEEDS_KB / 1e6}") GB in $target; $(awk "BEGIN {printf \"%.1f\", ($free_kb + $used_kb) / 1e6}") GB are free"
    [ $((free_kb + used_kb)) -ge "$NEEDS_KB" ] || fail "$above: expected $((NEEDS_KB / 1000)) MB of free space, got $(((free_kb + used_kb) / 1000)) MB; free some, or install elsewhere: sh install.sh FOLDER"
    rm -rf "$target"
    mkdir -p "$target" || fail "$target: expected a folder that can be written; name another: sh install.sh FOLDER"
    echo unfinished >"$target/$mark"
    "$python" -I -m venv --without-pip "$target" || fail "$target: expected $python to make a virtual environment, got the error above"
    # pip comes from the bundle: the machine's may be old or missing. None of its settings are read.
    set -- wheelhouse/pip-*.whl
    PIP_CONFIG_FILE=/dev/null "$target/bin/python" -I "$1/pip" --isolated install --quiet --disable-pip-version-check \
        --no-cache-dir --no-index --find-links wheelhouse --require-hashes --requirement requirements.txt ||
        fail "$target: expected pip to install the wheels, got the error above; nothing is ready: run sh install.sh again once it is mended"
    "$target/bin/python" -I -m pip check >/dev/null || fail "$target: expected packages that fit each other; run $target/bin/python -m pip check"
    cp SHA256SUMS "$target/$mark.new"
    mv "$target/$mark.new" "$target/$mark"
    echo "Installed fcast $FCAST for $ROLE in $target"
fi
echo "Next:"
echo "  . $target/bin/activate"
echo "  and follow $here/README.md ($here/README.zh.md)"
