#!/bin/bash
# Holds the documents to what they say: test_documents.sh BUILD-DIRECTORY C++-COMPILER.
#   - every relative link in a *.md file leads to a file, and its #anchor to a heading;
#   - every command of ours, in a block or in the text, has a subcommand and options that exist, with values that are
#     accepted, and names tests that there are;
#   - every block of README, manual and course runs as it stands there; see "Blocks";
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
# Those of which every block runs.
mapfile -t running < <(printf '%s\n' "${documents[@]}" | grep -xE 'README\.md|docs/(command-line|(manual|course)/.*)\.md')

# blocks FILE: its code blocks, line by line.
#   LINE<tab><<tab>KIND<tab>EXCUSE   a block begins. KIND is what stands behind the fence, or "indented"; EXCUSE the WHY
#                                    of a "<!-- not run: WHY -->" before it
#   LINE<tab>KIND<tab>TEXT           in it
#   LINE<tab>>                       its closing fence
blocks() {
  awk '
    function begin(what) { kind = what; printf "%d\t<\t%s\t%s\n", NR, kind, excuse; excuse = "" }
    fence == "" && /^ *```/ {
      match($0, /^ */); margin = RLENGTH
      match($0, /`+/); fence = substr($0, RSTART, RLENGTH)
      begin(substr($0, RSTART + RLENGTH)); indented = 0; next
    }
    fence != "" {
      text = $0; sub(/^ */, "", text)
      if (index(text, fence) == 1) { fence = ""; blank = 1; printf "%d\t>\n", NR; next }
      printf "%d\t%s\t%s\n", NR, kind, substr($0, margin + 1); next
    }
    /^    / && (blank || indented) {
      if (!indented) begin("indented")
      indented = 1; blank = 0
      printf "%d\t%s\t%s\n", NR, kind, substr($0, 5); next
    }
    /^ *<!-- not run: .* -->$/ { excuse = $0; gsub(/^ *<!-- not run: | -->$/, "", excuse); blank = 1; next }
    /^ *$/ { blank = 1; next }
    { blank = indented = 0; excuse = "" }
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

# check_command WHERE COMMAND block|text
check_command() {
  local where=$1 words program sub=() word message
  # Comments end a command, and so do redirections and pipes.
  read -ra words <<<"$(sed 's/ #.*//; s/ [|>].*//' <<<"$2")"
  program=${words[0]##*/}
  words=("${words[@]:1}")
  if [[ $program == reproduce.sh ]]; then program=reproduce_cifar; fi
  help_of "$program"
  if [[ $program == goshawk && ${#words[@]} -gt 0 && ${words[0]} != -* ]]; then
    sub=("${words[0]}")
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
  # Values are checked before help is printed, also those in a file, and in the text may be placeholders.
  if [[ $3 == text || " ${words[*]} " == *" --config "* ]]; then return; fi
  words=("${words[@]//\"/}")
  if ! message=$("$build/apps/$program" "${sub[@]}" "${words[@]}" --help 2>&1); then report "$where: $message"; fi
}

# check_tests WHERE PRESET REGEX: what ./test.sh PRESET -R REGEX runs.
check_tests() {
  grep -qF "\"name\": \"$2\"" CMakePresets.json || report "$1: there is no preset $2"
  [[ $(ctest --test-dir "$build" -N -R "$3") == *Test*\#* ]] || report "$1: no test is called $3"
}

# inline FILE: "LINE<tab>text<tab>CODE" for the code outside blocks.
inline() {
  awk '
    /^ *```/ { inside = !inside; blank = 1; next }
    inside { next }
    /^    / && (blank || indented) { indented = 1; next }
    { indented = 0; blank = /^ *$/ }
    {
      text = $0
      while (match(text, /`[^`]+`/)) {
        printf "%d\ttext\t%s\n", NR, substr(text, RSTART + 1, RLENGTH - 2)
        text = substr(text, RSTART + RLENGTH)
      }
    }
  ' "$1"
}

count=0
for document in "${documents[@]}"; do
  while IFS=$'\t' read -r line place command; do
    if [[ $command =~ ^(\./|build/release/apps/)?(reproduce\.sh|goshawk|reproduce_cifar|predict_loss|exact_road|bench)( |$) ]]; then
      count=$((count + 1))
      check_command "$document:$line" "$command" "$place"
    elif [[ $command =~ ^\./test\.sh\ ([a-z]+)\ -R\ \'?([^\']+[^\' ])\'?( *#.*)?$ ]]; then
      count=$((count + 1))
      check_tests "$document:$line" "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]%% *}"
    fi
  done < <(
    # Lines that go on are one command, at the line that it begins.
    blocks "$document" | awk -F '\t' '
      $2 ~ /^(sh|indented)$/ {
        line = command == "" ? $1 : line
        sub(/^[^\t]*\t[^\t]*\t(\$ )? */, "")
        command = command $0
        if (sub(/\\$/, "", command)) next
        print line "\tblock\t" command; command = ""
      }'
    inline "$document" | grep -vE $'\tgoshawk [A-Z]'
  )
done
echo "$count commands"

# ── Blocks ──

# What stands behind a fence says how its block runs:
#   sh                 commands; those of a page run in turn in one shell
#   KIND file=NAME     is written where that shell is by then; a later command of the page needs it
#   cpp example=FILE, text output=FILE    an example and what it prints: test_documents.cpp builds, runs and compares
#   cpp excerpt=FILE   the lines stand in this example, in this order; tests build and run it
#   json line-of=FILE  but for the numbers, a line of such a file as a command of some page wrote it
#   text, math         nothing to run
# "<!-- not run: WHY -->" before a block excuses it.

# script FILE: its commands and files, each line at the number that it has there.
# shellcheck disable=SC2016 # for the other shell
script() {
  echo 'trap '\''echo "line $LINENO: $BASH_COMMAND" >&2'\'' ERR'
  blocks "$1" | awk -F '\t' '
    function put(text) { for (at += at ? 0 : 2; at < $1; ++at) print ""; print text; ++at }
    $2 == "<" {
      file = match($3, / file=/) ? substr($3, RSTART + RLENGTH) : ""
      runs = $4 == "" && ($3 == "sh" || file != "")
      if (runs && file != "") put("cat >" file " <<'\''END OF BLOCK'\''")
      next
    }
    !runs { next }
    $2 == ">" { if (file != "") put("END OF BLOCK"); next }
    { text = $0; sub(/^[^\t]*\t[^\t]*\t/, "", text); put(text) }
  '
}

# The pages' reader has a clone of the project, CIFAR-10 and pictures. Here they are a copy and, in miniature, records of
# a label and 3,072 bytes of pixels, which are those of a file at hand.
mkdir "$scratch/clone" "$scratch/home" "$scratch/bin" "$scratch/web"
for path in *; do
  [[ $path =~ ^(build|runs|data)$ ]] || cp -a "$path" "$scratch/clone/"
done
pictures=$scratch/clone/cifar-10-batches-bin
mkdir "$pictures"
ln -s cifar-10-batches-bin "$scratch/clone/pictures"
record=0
for name in data_batch_{1..5} test_batch; do
  for label in {0..9} {0..9} {0..9}; do
    # shellcheck disable=SC2059 # the format is an escape
    printf "\\x0$label"
    tail -c +$((4096 + 1024 * record++)) "$build/apps/goshawk" | head -c 3072 || true
  done >"$pictures/$name.bin"
done
tar -C "$scratch/clone" -czf "$scratch/web/cifar-10-binary.tar.gz" cifar-10-batches-bin

# All that is not as on the reader's machine stands here. Programs of this machine, by what they do instead:
stand_in() {
  printf '#!/bin/bash\n%s\n' "$2" >"$scratch/bin/$1"
  chmod +x "$scratch/bin/$1"
}
stand_in g++ "exec '$compiler' \"\$@\""
stand_in curl "cp '$scratch/web/'\"\${2##*/}\" ."  # -O URL
if compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null && apt=$(command -v apt-get); then
  stand_in apt-get "exec '$apt' --dry-run \"\$@\""
else
  echo "apt has no lists here: whether there are the packages was not tried"
  stand_in apt-get :
fi
command -v dpkg-query >/dev/null || stand_in dpkg-query "echo installed"
if ! command -v doxygen >/dev/null; then
  echo "there is no doxygen here: the reference was not tried"
  stand_in doxygen :
fi
# Commands that would take long, "shorten <SCRIPT": what has no file of options gets one, and ./test.sh runs some tests,
# of which this is none.
shorten() {
  sed -E "/--(config|resume)/! s,^(\./reproduce\.sh|goshawk (train|quantize|bench))( |\$),\1 --config \"\$GOSHAWK_QUICK\" ,
          s,^\./test\.sh( *#|\$),./test.sh release -R '^core_tensor\$'\1,"
}
export GOSHAWK_QUICK=$root/tests/docs/quick.toml
# And compiling takes what the build under test has.
export CMAKE_CXX_COMPILER_LAUNCHER=$root/tests/docs/take_object.sh GOSHAWK_OBJECTS=$build CXX=$compiler

count=0
: >"$scratch/lines"
for document in "${running[@]}"; do
  script "$document" | shorten >"$scratch/script"
  : >"$scratch/output"
  rm -rf "$scratch/clone/runs" # another page's
  while IFS=$'\t' read -r line kind excuse; do
    where=$document:$line
    count=$((count + 1))
    if [[ -n $excuse ]]; then
      echo "not run: $where: $excuse"
      continue
    fi
    block=$(blocks "$document" | sed "0,/^$line\t</d; /^[0-9]*\t[<>]/,\$d; s/^[^\t]*\t[^\t]*\t//")
    [[ -n $block ]] || report "$where: the block is empty"
    name=${kind#*=}
    path=$(dirname "$document")/$name
    case $kind in
      sh | math | "cpp example="* | "text output="*) ;;
      text)
        if grep -qE '^ *(\$ |\./|build/|goshawk |cmake |apt-get |g\+\+ )' <<<"$block"; then
          report "$where: this looks like commands; sh blocks run"
        fi
        ;;
      *" file="*)
        needs=$name
        [[ $name != CMakeLists.txt ]] || needs="cmake -B"
        sed "1,$((line + 1))d" "$scratch/script" | grep -F -- "$needs" >/dev/null ||
          report "$where: no command below needs $name"
        ;;
      "cpp excerpt="*)
        awk '
          { sub(/^ */, "") }
          NR == FNR { if ($0 != "") wanted[++n] = $0; next }
          $0 == wanted[k + 1] { ++k }
          END { if (k < n) { print wanted[k + 1]; exit 1 } }
        ' <(echo "$block") "$path" >"$scratch/output" ||
          report "$where: $name does not have this line, or not there: $(cat "$scratch/output")"
        ;;
      "json line-of="*) printf '%s\t%s\t%s\n' "$where" "$name" "$(tr -d '\n' <<<"$block")" >>"$scratch/lines" ;;
      *) report "$where: nothing runs this block of kind '$kind'; the kinds stand in tests/docs/test_documents.sh" ;;
    esac
  done < <(blocks "$document" | sed -n 's/\t<\t/\t/p')

  start=$SECONDS
  if ! (cd "$scratch/clone" && HOME=$scratch/home PATH="$scratch/bin:$PATH" bash -Eeuo pipefail "$scratch/script") \
    >"$scratch/output" 2>&1; then
    report "$document: $(tail -n 2 "$scratch/output" | tr '\n' ' ')"
  fi
  if ((SECONDS > start + 1)); then echo "$document: $((SECONDS - start)) s"; fi
  find "$scratch/clone/runs" -name '*.jsonl' -exec sh -c 'cat "$1" >>"$2/${1##*/}"' - {} "$scratch" \; 2>/dev/null || true
done
echo "$count blocks of ${#running[@]} pages run"

# digits: texts with each number as 0, and without spaces.
digits() { tr -d ' ' | sed -E 's/([:,[])-?[0-9][0-9.eE+-]*/\10/g'; }
while IFS=$'\t' read -r where name line; do
  grep -qxF -- "$(digits <<<"$line")" <(digits <"$scratch/$name") || report "$where: no command wrote such a line to $name"
done <"$scratch/lines"

# What README tells to install is what the scripts install.
# shellcheck source=scripts/packages.sh
source scripts/packages.sh
listed=$(blocks README.md | sed -n 's/^[^\t]*\tsh\t//; /^apt-get install/,/[^\\]$/ { s/^apt-get install//; s/\\$//; p }' | xargs)
[[ $listed == "${build_packages[*]}" ]] || report "README.md: the packages are not those of scripts/packages.sh"

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
