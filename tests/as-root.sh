#!/bin/sh
# Runs its arguments as root: directly, or through sudo. Network namespaces and packet sockets need it.
[ "$(id -u)" -eq 0 ] && exec "$@"
command -v sudo >/dev/null 2>&1 && exec sudo -- "$@"
echo "this needs root (network namespaces, packet sockets): run it as root or install sudo" >&2
exit 2
