#!/bin/bash
# Builds Goshawk and reproduces HAWQ's table: ./reproduce.sh [OPTION...], the options of reproduce_cifar.
# ./reproduce.sh --help lists them. Needs Debian 12 (bash and apt); missing packages are installed.
set -euo pipefail
unset CDPATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/packages.sh
source "$root/scripts/packages.sh"
require_packages "${build_packages[@]}"

# All but the program's own output goes to standard error. Relative paths among the options stay the caller's.
(
  cd "$root"
  cmake --preset release
  cmake --build --preset release --parallel "$(nproc)" --target reproduce_cifar goshawk
) >&2
exec "$root/build/release/apps/reproduce_cifar" "$@"
