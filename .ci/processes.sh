# Keeps hold of the processes a script starts.  Sourced by .ci/run and tests/full.sh, not run.
#
#     own_processes             once, first: makes a temporary directory, exports it as TMPDIR, and
#                               sets the traps: however the script ends, every process it started
#                               is ended and the directory removed
#     in_group COMMAND...       runs COMMAND in a process group of its own and waits for it; its
#                               status is COMMAND's
#     start LOG COMMAND...      starts COMMAND in a process group of its own, output to LOG, and
#                               does not wait; $started is its id
#     stop ID                   ends that group: SIGTERM, SIGKILL after 30 s.  Status 1 when it had
#                               to be killed
#     survivors                 prints 'ID COMMAND' for each process that still runs
#     end_survivors             waits 30 s for them, then kills them and prints them; status 1 when
#                               there were any
#
# A process can leave its group (a browser does), but it takes its environment with it: whatever
# carries our TMPDIR in its environment or command line was started by us.  That reads Linux's
# /proc; where there is none, the groups have to do.
# shellcheck shell=bash

groups_started=()

own_processes() {
  TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXX")
  export TMPDIR
  trap end_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}

in_group() {
  local rc=0 id
  set -m
  "$@" </dev/null &
  set +m
  id=$!
  groups_started+=("$id")
  wait "$id" || rc=$?
  forget "$id"
  return "$rc"
}

start() {
  local log=$1
  shift
  : >"$log"
  set -m
  "$@" >>"$log" 2>&1 </dev/null &
  set +m
  started=$!
  groups_started+=("$started")
}

stop() {
  local tick rc=0
  forget "$1"
  kill -TERM -- "-$1" 2>/dev/null || true
  for ((tick = 0; tick < 300; tick++)); do
    kill -0 -- "-$1" 2>/dev/null || break
    sleep 0.1
  done
  if kill -KILL -- "-$1" 2>/dev/null; then rc=1; fi
  wait "$1" 2>/dev/null || true # takes its status away, or bash would print it
  return "$rc"
}

survivors() {
  local id command
  [[ -d /proc/self ]] || return 0
  # The search must not find itself: it has neither the variable nor the argument.
  env -u TMPDIR grep -lsF -f - /proc/[0-9]*/environ /proc/[0-9]*/cmdline <<<"$TMPDIR" |
    cut -d/ -f3 | sort -un |
    while read -r id; do
      command=$(tr '\0' ' ' 2>/dev/null <"/proc/$id/cmdline") || continue
      [[ -z "$command" ]] || printf '%s %s\n' "$id" "${command:0:200}"
    done 2>/dev/null # one that ends while we look
}

end_survivors() {
  local tick left id _
  for ((tick = 0; tick < 300; tick++)); do
    left=$(survivors)
    [[ -n "$left" ]] || return 0
    sleep 0.1
  done
  printf 'left running, killed now:\n%s\n' "$left" >&2
  while read -r id _; do kill -KILL "$id" 2>/dev/null || true; done <<<"$left"
  return 1
}

# --- what only the functions above use ---

forget() {
  local id kept=()
  for id in "${groups_started[@]}"; do [[ "$id" == "$1" ]] || kept+=("$id"); done
  groups_started=("${kept[@]}")
}

end_all() {
  local rc=$? id
  trap '' INT TERM HUP
  for id in "${groups_started[@]}"; do kill -TERM -- "-$id" 2>/dev/null || true; done
  for id in "${groups_started[@]}"; do stop "$id" || true; done
  end_survivors || true
  rm -rf "$TMPDIR"
  exit "$rc"
}
