#!/bin/sh
# Runs one piece of work on a device: sh supervise.sh JOB LOCK WAIT LIMIT HOLDER COMMAND...
#
# It takes turns with others by LOCK (for at most WAIT seconds), gives the work LIMIT seconds, and kills it with all its
# children once standard input ends: whoever asked for it is gone, so the folder JOB goes too. It answers on standard
# output with "busy HOLDER" or "done CODE BEGIN END" (uptime in seconds), on standard error with the end of what the work
# printed. Only what coreutils and util-linux, busybox, and Android's toybox have in common is used.

job=$1 lock=$2 wait=$3 limit=$4 holder=$5
shift 5
main=$$ watch=''

stop() { # the last started is the work, or who waits for the lock; it may not have become the leader of its group yet
    trap '' HUP INT TERM
    kill -KILL "-$!" 2>/dev/null
    kill -KILL "$!" 2>/dev/null
    kill -KILL "$watch" 2>/dev/null
    rm -rf "$job"
    exit 143
}
trap stop HUP INT TERM

cd "$job" || exit 1
exec 3<&0 9>>"$lock" || exit 1
(while read -r _ <&3; do :; done; kill -TERM "$main") >/dev/null 2>&1 9>&- &
watch=$!

timeout "$wait" flock 9 9>&9 & # mksh keeps its files to itself unless told
if ! wait "$!"; then
    kill -KILL "$watch"
    echo "busy $(cat "$lock.holder" 2>/dev/null)"
    exit 0
fi
echo "$holder since $(date -u +%H:%M:%S) UTC" 2>/dev/null >"$lock.holder"

read -r begin _ </proc/uptime
setsid timeout -k 5 "$limit" "$@" </dev/null >stderr.txt 2>&1 3<&- 9>&- &
wait "$!" 2>/dev/null
code=$?
read -r end _ </proc/uptime
kill -KILL "-$!" 2>/dev/null
kill -KILL "$watch" # TERM may come before it has let go of the traps above, and be lost
tail -c 4000 stderr.txt >&2
echo "done $code $begin $end"
