#!/bin/bash
# Installs a build into an empty directory and builds a project outside the tree against it, once with
# find_package and once with pkg-config, and looks into the Debian package: test_install.sh BUILD-DIRECTORY C++-COMPILER.
set -euo pipefail
build=$1 compiler=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cmake --install "$build" --prefix "$scratch/prefix" >"$scratch/install.log"
"$scratch/prefix/bin/goshawk" --version

cmake -G Ninja -S "$here/consumer" -B "$scratch/build" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_PREFIX_PATH="$scratch/prefix" \
  -DCMAKE_BUILD_TYPE=Release >"$scratch/configure.log"
cmake --build "$scratch/build"
with_cmake=$("$scratch/build/consumer")

echo "$with_cmake"
[[ $with_cmake == loss* ]]

# The manual's examples are for readers outside the tree: what they include is installed.
for example in "$here"/../../docs/manual/examples/*.cpp; do
  "$compiler" -std=c++20 -fsyntax-only -I "$scratch/prefix/include/goshawk" "$example"
done

# The package brings the same files, and programs that start.
if command -v dpkg-shlibdeps >/dev/null; then
  cpack --config "$build/CPackConfig.cmake" -G DEB -B "$scratch/package" >"$scratch/cpack.log" 2>&1 || {
    cat "$scratch/cpack.log" >&2
    exit 1
  }
  package=$(echo "$scratch"/package/*.deb)
  dpkg-deb --field "$package" Depends | grep -q libtbb-dev
  dpkg-deb --extract "$package" "$scratch/unpacked"
  "$scratch/unpacked/usr/bin/goshawk" --version
  diff <(cd "$scratch/prefix" && find . -type f | sort) <(cd "$scratch/unpacked/usr" && find . -type f | sort)
else
  echo "there is no dpkg-shlibdeps here (package dpkg-dev): the Debian package was not made"
fi

if ! command -v pkg-config >/dev/null; then
  echo "there is no pkg-config here: what it would say of the library was not tried"
  exit 0
fi
# Wherever it was installed to, which nobody knew when it was configured.
for place in "$scratch/prefix" "$scratch/unpacked/usr"; do
  [[ -d $place ]] || continue
  directory=$(dirname "$(find "$place" -name goshawk.pc)")
  flags=$(PKG_CONFIG_PATH=$directory pkg-config --cflags --libs goshawk)
  # shellcheck disable=SC2086 # a list of options
  "$compiler" -std=c++20 -O2 "$here/consumer/main.cpp" $flags -o "$scratch/consumer"
  [[ $with_cmake == "$("$scratch/consumer")" ]]
  rm "$scratch/consumer"
done
