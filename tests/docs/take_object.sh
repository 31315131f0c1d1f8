#!/bin/bash
# A compiler launcher for building a copy of the project in seconds: take_object.sh COMPILER ARGUMENT...
# An object that the build directory GOSHAWK_OBJECTS has under the same name stands in for compiling it again.
object="" dependencies="" option=""
for word in "$@"; do
  case $option in
    -o) object=$word ;;
    -MF) dependencies=$word ;;
  esac
  option=$word
done
if [[ -z $object || ! -e $GOSHAWK_OBJECTS/$object ]]; then exec "$@"; fi
ln -sf "$GOSHAWK_OBJECTS/$object" "$object"
[[ -z $dependencies ]] || echo "$object:" >"$dependencies"
