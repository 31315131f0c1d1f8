#!/bin/bash
# Holds the documents to what they say: test_documents.sh BUILD-DIRECTORY C++-COMPILER.
#   - every relative link in a *.md file leads to a file, and its #anchor to a heading;
#   - every command of ours in a block has a subcommand and options that exist, with values that are accepted;
#   - the lines of ```cpp blocks in docs/manual stand in its examples, which are built and run by tests of their own;
#   - blocks after "<!-- runs -->" run as they stand, in order, in a directory with made-up data;
#   - the program in README.md compiles with the command below it, and runs;
#   - the reference is made without a warning, where there is Doxygen.
# Each finding names the file and the line.
set -euo pipefail
export LC_ALL=C
build=$(cd "$1" && pwd) compiler=$2
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

failures=0
report() {
  echo "test_documents: $*" >&2
  failures=$((failures + 1))
}

mapfile -t documents < <(find . -name build -prune -o -name runs -prune -o -name '.*' -path './.*' -prune -o -name '*.md' -print |
  sed 's,^\./,,' | LC_ALL=C sort)
((${#documents[@]})) || report "no documents found"

# blocks FILE: the lines of its code blocks as "LINE<tab>KIND<tab>TEXT". KIND is the word after the fence or "indented",
# with "!" in front after a "<!-- runs -->".
blocks() {
  awk '
    fence == "" && /^ *```/ {
      match($0, /`+/); fence = substr($0, RSTART, RLENGTH); kind = substr($0, RSTART + RLENGTH)
      match($0, /^ */); margin = RLENGTH
      if (runs) kind = "!" kind
      runs = indented = marked = 0; next
    }
    fence != "" {
      text = $0; sub(/^ */, "", text)
      if (index(text, fence) == 1) { fence = ""; blank = 1; next }
      printf "%d\t%s\t%s\n", NR, kind, substr($0, margin + 1); next
    }
    /^ *<!-- runs -->$/ { runs = blank = 1; indented = marked = 0; next }
    /^    / && (blank || indented) {
      if (runs && !indented) marked = 1
      indented = 1; runs = 0; blank = 0
      printf "%d\t%sindented\t%s\n", NR, marked ? "!" : "", substr($0, 5); next
    }
    /^ *$/ { blank = 1; next }
    { blank = indented = marked = runs = 0 }
  ' "$1"
}

# ── Links ──

# links FILE: "LINE<tab>TARGET" for each link outside code.
links() {
  awk '
    /^ *```/ { inside = !inside; blank = 1; next }
    inside { next }
    /^    / && (blank || indented) { indented = 1; next }
    { indented = 0; blank = /^ *$/ }
    {
      text = $0; gsub(/`[^`]*`/, "", text)
      while (match(text, /\]\([^()]*(\([^()]*\)[^()]*)*\)/)) {
        printf "%d\t%s\n", NR, substr(text, RSTART + 2, RLENGTH - 3)
        text = substr(text, RSTART + RLENGTH)
      }
    }
  ' "$1"
}

# anchors FILE: what GitHub makes of its headings, but for letters that are not ASCII, which are left out.
anchors() {
  awk '/^ *```/ { inside = !inside } !inside && /^#+ / { sub(/^#+ /, ""); print }' "$1" |
    LC_ALL=C sed 's/[^A-Za-z0-9 _-]//g; s/ /-/g' | tr '[:upper:]' '[:lower:]'
}

count=0
for document in "${documents[@]}"; do
  while IFS=$'\t' read -r line target; do
    [[ $target == *://* || $target == mailto:* ]] && continue
    count=$((count + 1))
    file=${target%%#*}
    path=$document
    [[ -z $file ]] || path=$(dirname "$document")/$file
    if [[ ! -e $path ]]; then
      report "$document:$line: the link to $target leads nowhere"
    elif [[ $target == *#* && $path == *.md ]]; then
      anchor=${target#*#}
      anchor=${anchor//[^A-Za-z0-9_-]/}
      grep -qxF -- "$anchor" <(anchors "$path") || report "$document:$line: $file has no heading for #${target#*#}"
    fi
  done < <(links "$document")
done
echo "$count links in ${#documents[@]} documents"

# ── Commands ──

declare -A help
# help_of PROGRAM [SUBCOMMAND]: sets $text to what --help prints.
help_of() {
  [[ -v "help[$*]" ]] || help[$*]=$("$build/apps/$1" "${@:2}" --help 2>&1)
  text=${help[$*]}
}

# check_command WHERE COMMAND
check_command() {
  local where=$1 words program sub=() word message
  # Comments end a command, and so do redirections and pipes.
  read -ra words <<<"$(sed 's/ #.*//; s/ [|>].*//' <<<"$2")"
  program=${words[0]##*/}
  words=("${words[@]:1}")
  if [[ $program == reproduce.sh ]]; then program=reproduce_cifar; fi
  help_of "$program"
  if [[ $program == goshawk && ${words[0]-} != -* ]]; then
    sub=("${words[0]-}")
    words=("${words[@]:1}")
    if ! grep -qE -- "^  ${sub[0]} " <<<"$text"; then
      report "$where: goshawk has no subcommand '${sub[0]}'"
      return
    fi
    help_of goshawk "${sub[@]}"
  fi
  for word in "${words[@]}"; do
    # An option stands at the beginning of its line of the help text, perhaps after a short one.
    if [[ $word == --* ]] && ! grep -qE -- "^ +(-[A-Za-z],)?${word%%=*}([ :=]|\$)" <<<"$text"; then
      report "$where: $program${sub[0]+ ${sub[0]}} has no option ${word%%=*}"
      return
    fi
  done
  # Values are checked before help is printed.
  words=("${words[@]//\"/}")
  if ! message=$("$build/apps/$program" "${sub[@]}" "${words[@]}" --help 2>&1); then report "$where: $message"; fi
}

count=0
for document in "${documents[@]}"; do
  command="" start=0
  while IFS=$'\t' read -r line kind text; do
    [[ ${kind#!} =~ ^(sh|console|bash|indented)$ ]] || continue
    if [[ -z $command ]]; then start=$line; fi
    command+=${text#\$ }
    if [[ $command == *\\ ]]; then
      command=${command%\\}
      continue
    fi
    command=${command#"${command%%[! ]*}"}
    if [[ $command =~ ^(\./|build/release/apps/)?(reproduce\.sh|goshawk|reproduce_cifar|predict_loss|exact_road|bench)( |$) ]]; then
      count=$((count + 1))
      check_command "$document:$start" "$command"
    fi
    command=""
  done < <(blocks "$document")
done
echo "$count commands"

# ── Excerpts of the manual's examples ──

while IFS= read -r document; do
  while IFS=$'\t' read -r line kind text; do
    [[ $kind == cpp ]] || continue
    text=${text#"${text%%[! ]*}"}
    [[ -z $text ]] || grep -qF -- "$text" docs/manual/examples/*.cpp ||
      report "$document:$line: no example in docs/manual/examples has the line: $text"
  done < <(blocks "$document")
done < <(find docs/manual -name '*.md' | sort)

# ── Blocks that run ──

# The programs under the names that the documents give them, and CIFAR-10 in miniature: records of a label and 3,072
# bytes of pixels, which are those of a file at hand.
mkdir -p "$scratch/run/cifar-10-batches-bin" "$scratch/run/build/release"
ln -s "$build/apps" "$scratch/run/build/release/apps"
ln -s "$build/apps/reproduce_cifar" "$scratch/run/reproduce.sh"
ln -s "$root/docs" "$scratch/run/docs"
ln -s cifar-10-batches-bin "$scratch/run/pictures"
record=0
for name in data_batch_{1..5} test_batch; do
  for label in {0..9} {0..9} {0..9}; do
    # shellcheck disable=SC2059 # the format is an escape
    printf "\\x0$label"
    tail -c +$((4096 + 1024 * record++)) "$build/apps/goshawk" | head -c 3072 || true
  done >"$scratch/run/cifar-10-batches-bin/$name.bin"
done

count=0
for document in "${documents[@]}"; do
  # Each command stands at the line that it has in the document.
  # shellcheck disable=SC2016 # for the other shell
  blocks "$document" | awk -F '\t' -v script="$scratch/script" '
    $2 ~ /^!/ {
      if (!at++) { print "trap '\''echo \"line $LINENO: $BASH_COMMAND\" >&2'\'' ERR" >script; at = 2 }
      for (line = $1; at < line; ++at) print "" >script
      sub(/^[^\t]*\t[^\t]*\t/, ""); sub(/^\$ /, ""); print >script; ++at
    }
    END { exit !at }' || continue
  count=$((count + 1))
  rm -rf "$scratch/run/runs" # another document's
  if ! (cd "$scratch/run" && PATH="$build/apps:$PATH" bash -Eeuo pipefail "$scratch/script") >"$scratch/output" 2>&1; then
    report "$document: a block that is marked to run fails: $(tail -n 2 "$scratch/output" | tr '\n' ' ')"
  fi
done
echo "blocks of $count documents were run"

# ── The program in README.md ──

blocks README.md | sed -n 's/^[0-9]*\tcpp\t//p' >"$scratch/hvp.cpp"
compile=$(blocks README.md | sed -n 's/^[0-9]*\tindented\t\(g++ .*\)/\1/p')
compile=${compile/#g++/$compiler}
compile=${compile//build\/release/$build}
compile=${compile//hvp/$scratch/hvp}
if ! eval "$compile" >"$scratch/output" 2>&1 || ! "$scratch/hvp"; then
  report "README.md: the program does not compile or run: $(head -n 1 "$scratch/output")"
fi

# ── The reference ──

if command -v doxygen >/dev/null; then
  { cat docs/Doxyfile && echo "OUTPUT_DIRECTORY = $scratch"; } | doxygen - >/dev/null 2>"$scratch/output" || true
  while IFS= read -r line; do report "${line#"$root/"}"; done < <(uniq "$scratch/output")
else
  echo "there is no doxygen here: the reference was not tried"
fi

if ((failures)); then
  echo "test_documents: $failures findings" >&2
  exit 1
fi
