#!/bin/bash
# The reports of docs/results in Chromium: check_report.sh GOSHAWK RESULTS [SCREENSHOTS]. Ends with 77 (skipped) where
# there is no Chromium or no Node.js; `apt-get install chromium nodejs` brings both.
set -euo pipefail

skip() {
  echo "skipped: $1"
  exit 77
}
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
  skip "there is no Chromium to look at reports with"
command -v node >/dev/null || skip "there is no Node.js to drive Chromium with"
node -e 'process.exit(parseInt(process.versions.node) >= 16 ? 0 : 1)' || skip "Node.js is older than 16"
exec node "$(dirname "${BASH_SOURCE[0]}")/check_report.mjs" "$1" "$2" "$chromium" "${@:3}"
