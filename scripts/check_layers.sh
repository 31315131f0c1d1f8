#!/bin/bash
# Checks what no compiler does: a lower floor never includes a higher one, includes are written from the
# repository's root, headers are guarded, a type has its name for itself, and no source knows a path of somebody's
# machine.
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What each floor may include.
declare -A sees=(
  [core]="core"
  [autograd]="core autograd"
  [nn]="core autograd nn"
  [models]="core autograd nn models"
  [datasets]="core datasets"
  [quant]="core autograd nn models datasets quant"
  [apps]="core autograd nn models datasets quant apps"
)
failures=0
report() {
  echo "check_layers: $*" >&2
  failures=$((failures + 1))
}

# check_includes FILE FLOORS: every quoted include names a file on one of the floors. A test may also include the
# tests' helpers: beside it, or from tests/.
check_includes() {
  local file=$1 floors=$2 line include
  while IFS=: read -r line include; do
    [[ $include =~ \"(.*)\" ]]
    include=${BASH_REMATCH[1]}
    if [[ $file == tests/* && ($include == tests/* || $include != */*) ]]; then
      [[ -f $include || -f ${file%/*}/$include ]] || report "$file:$line: there is no helper \"$include\""
    elif [[ " $floors " != *" ${include%%/*} "* ]]; then
      report "$file:$line: includes \"$include\", but this floor may only see: $floors"
    elif [[ ! -f $include ]]; then
      report "$file:$line: there is no $include; includes are written from the repository's root"
    fi
  done < <(grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"[^"]*"' "$file" || true)
  while IFS=: read -r line include; do
    report "$file:$line: $include: what is ours stands between quotes"
  done < <(grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*<(core|autograd|nn|models|datasets|quant|apps|tests)/' \
    "$file" || true)
}

sources=()
while IFS= read -r -d '' file; do
  sources+=("$file")
  floor=${file%%/*}
  if [[ $floor == tests ]]; then
    # A test sees what the floor that it tests sees; those of no single floor see all but the programs.
    floor=${file#tests/}
    floor=${floor%%/*}
  fi
  check_includes "$file" "${sees[$floor]:-${sees[quant]}}"
done < <(find "${!sees[@]}" tests -name '*.[ch]pp' -print0 | sort -z)
((${#sources[@]})) || report "no sources found"

for file in "${sources[@]}"; do
  # A -inl.hpp is one that Highway includes once per instruction set.
  if [[ $file == *.hpp && $file != *-inl.hpp ]] && ! grep -q '^#pragma once$' "$file"; then report "$file: has no #pragma once"; fi
done
# Two types of one name in one program make the linker keep one constructor for both, and say nothing (C++'s
# one-definition rule). Tests are programs of their own; a type of theirs may still not have a name of the library's.
while IFS= read -r hit; do
  report "$hit"
done < <(awk '
  FNR == 1 { depth = 0 }
  /^namespace .*\{$/ { spaces[++depth] = $2 }
  /^}  \/\/ namespace/ { --depth }
  /^(struct|class|enum class) [A-Za-z_][A-Za-z_0-9:]*( |$)[^;]*\{/ {
    name = $1 == "enum" ? $3 : $2
    for (i = depth; i > 0; --i) {
      if (spaces[i] == "{") next
      name = spaces[i] "::" name
    }
    if (!(name in first)) first[name] = FILENAME ":" FNR
    else if (FILENAME !~ /^tests\// || first[name] !~ /^tests\//)
      print FILENAME ":" FNR ": " name " is also the name of a type at " first[name]
  }' "${sources[@]}")
# A path behind a quote or a space, as in strings and comments; /dev and /proc are the same everywhere.
while IFS= read -r hit; do
  report "$hit: names a path of one machine"
done < <(grep -nHoE "(^|[\"' (])/(home|root|work|tmp|mnt|opt|usr|var|Users)/[^\"' )]*" "${sources[@]}" || true)

if ((failures)); then
  echo "check_layers: $failures problems in ${#sources[@]} files" >&2
  exit 1
fi
echo "check_layers: ${#sources[@]} files in order"
