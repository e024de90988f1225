#!/bin/sh
# docs/trace.md and docs/trace.schema.json, into the directory $2. Usage: trace.sh BUILD DIRECTORY
set -eu
here=$(dirname "$0")
{ cat "$here/trace_head.md"; "$1/docs/trace_doc" --markdown; } > "$2/trace.md"
"$1/docs/trace_doc" --schema > "$2/trace.schema.json"
