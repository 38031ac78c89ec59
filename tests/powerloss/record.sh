#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# record.sh FOLDER COMMAND...: run COMMAND with a mount point as last argument inside a user-mode Linux, on a new ext4 over
# dm-log-writes, and keep the log of every block write in FOLDER. COMMAND calls `$ACK TEXT` after each thing that it was
# promised is durable.
#
# Needs Debian's user-mode-linux, kmod, dmsetup, e2fsprogs and gcc. Runs as root, boots in seconds, touches nothing outside FOLDER.
set -euo pipefail

out=$(realpath -m "$1")
shift
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"

rm -f "$out"/{data,log}.img
truncate -s "${DISK_MB:-96}M" "$out/data.img" # the disk as it is at the end; not looked at
truncate -s "${LOG_MB:-1024}M" "$out/log.img" # sparse

# /run/disk: see init.sh
printf '%s\n' "cd $(printf %q "$PWD")" "export PATH=$(printf %q "$PATH") ACK=/run/ack" "exec $(printf '%q ' "$@")/run/disk" >"$out/workload.sh"

options=(mem="${MEM_MB:-384}M" root=/dev/root rootfstype=hostfs rootflags=/ ro "init=$here/init.sh" "workload=$out/workload.sh"
    "ubd0=$out/data.img" "ubd1=$out/log.img" con=null con0=null,fd:1 quiet)
gcc -shared -fPIC -O2 -o "$out/registers.so" "$here/registers.c"
# A SIGCONT, which some machines send to all processes after a pause, would end the traced processes: block it.
timeout --kill-after=5 "${SECONDS_MAX:-120}" env --block-signal=CONT "LD_PRELOAD=$out/registers.so" \
    linux.uml "${options[@]}" </dev/null >"$out/uml.log" 2>&1 || true

if ! grep -aq '^RECORDED' "$out/uml.log" || ! grep -aq '^WORKLOAD exit 0' "$out/uml.log"; then
    tail -n 40 "$out/uml.log" >&2
    exit 1
fi
