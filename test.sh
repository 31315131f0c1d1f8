#!/bin/bash
# Builds everything and runs all tests: ./test.sh [PRESET [CTEST-OPTION...]].
# PRESET is release (the default), ci, debug, asan or tsan; ./test.sh release -R conv runs the tests named so.
# Needs Debian 12 (bash and apt); missing packages are installed. The tests need no data and no network.
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/packages.sh
require_packages "${build_packages[@]}"
preset=${1:-release}
shift $(($# ? 1 : 0))

# What a sanitizer finds must fail the test that it is found in.
export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:${UBSAN_OPTIONS:-}"
export TSAN_OPTIONS="suppressions='$PWD/scripts/tsan.supp':history_size=4:${TSAN_OPTIONS:-}"

scripts/check_layers.sh
cmake --preset "$preset"
cmake --build --preset "$preset" --parallel "$(nproc)"
ctest --preset "$preset" --parallel "$(nproc)" --no-tests=error "$@"
