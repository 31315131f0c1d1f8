# shellcheck shell=bash
# Sourced by reproduce.sh, test.sh and .ci/run: what to install on Debian, and how.

# To build, test and run everything.
# shellcheck disable=SC2034
build_packages=(g++ cmake ninja-build libtbb-dev libopenblas-dev libhwy-dev libfmt-dev libcli11-dev
  nlohmann-json3-dev doctest-dev libstb-dev libbenchmark-dev)

# require_packages NAME...: installs those that are missing; needs neither network nor rights when none is.
require_packages() {
  local name script=${0##*/} missing=() as_root=()
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "$script: this system has no apt; install the packages that README.md lists and build with CMake" >&2
    return 1
  fi
  for name in "$@"; do
    # A line for each architecture that it is known for.
    dpkg-query -W -f '${db:Status-Status}\n' "$name" 2>/dev/null | grep -x installed >/dev/null || missing+=("$name")
  done
  ((${#missing[@]})) || return 0

  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      echo "$script: run as root (there is no sudo here): apt-get install ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  echo "$script: installing ${missing[*]}" >&2
  # An update that fails does not matter as long as the lists at hand lead to the packages.
  "${as_root[@]}" apt-get -q -o DPkg::Lock::Timeout=300 update >&2 || true
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
    install --no-install-recommends "${missing[@]}" >&2; then
    echo "$script: apt could not install ${missing[*]}; its message is above (is the network reachable?)" >&2
    return 1
  fi
}
