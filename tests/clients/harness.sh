# Checks, processes and waits for tests/clients/run. Knows nothing about Shoal or about any client.
# Everything lives below $WORK; only processes that `start` began are ever stopped.
# shellcheck shell=bash

passed=0
failed=0
summarised=no

# --- checks -------------------------------------------------------------------------------------------------

# check WHAT COMMAND...: runs the command in a subshell, prints one line, counts it, and always returns 0.
# Never call it under `if`, `&&` or `||`: bash would switch `set -e` off for the whole check.
check() {
  local what=$1 output="$WORK/check.out" status
  shift
  mark_logs
  set +e
  (
    set -e
    "$@"
  ) >"$output" 2>&1 </dev/null
  status=$?
  set -e
  if ((status == 0)); then
    passed=$((passed + 1))
    printf 'ok - %s\n' "$what"
  else
    failed=$((failed + 1))
    printf 'not ok - %s: %s\n' "$what" "$(reason "$status" "$output")"
    show "output of the check" <"$output"
    show_new_logs
  fi
}

# require WHAT COMMAND...: a check without which the rest would only be noise.
require() {
  local before=$failed
  check "$@"
  ((failed == before)) || finish
}

# fail WHY: ends the running check.
fail() {
  printf 'why: %s\n' "$*"
  exit 1
}

# The reason that `fail` gave, or else the last thing that the failing command said.
reason() {
  local status=$1 output=$2 said
  said=$(sed -n 's/^why: //p' "$output" | tail -n 1)
  [[ -n $said ]] || said=$(grep -v '^[[:space:]]*$' "$output" | tail -n 1 | cut -c 1-300) || true
  ((status != 124)) || said="timed out; ${said:-no output}"
  printf '%s' "${said:-exit status $status}"
}

# The only way out: stops everything, cleans up, and prints the summary as the last line.
finish() {
  summarised=yes
  stop_all
  remove_work
  printf '%d passed, %d failed\n' "$passed" "$failed"
  if ((failed > 0)); then exit 1; fi
  exit 0
}

# An exit that did not come through `finish` is a failure of the script, and still ends in a summary.
on_exit() {
  local status=$?
  [[ $summarised == no ]] || return 0
  failed=$((failed + 1))
  printf 'not ok - the script itself: ended early with status %d\n' "$status"
  finish
}

# --- logs ---------------------------------------------------------------------------------------------------

# How long each log was when the running check began.
declare -A log_length

mark_logs() {
  local log
  log_length=()
  for log in "$WORK"/logs/*.log; do
    [[ ! -e $log ]] || log_length[$log]=$(stat --format %s "$log")
  done
}

# What the daemons logged while the failed check ran: the rest is not about it.
show_new_logs() {
  local log
  for log in "$WORK"/logs/*.log; do
    [[ ! -e $log ]] || tail -c "+$((${log_length[$log]:-0} + 1))" "$log" | show "$(basename "$log")"
  done
}

# The tail of stdin below a heading, or nothing.
show() {
  local text
  text=$(tail -n "${LOG_LINES:-15}" | cut -c 1-300)
  [[ -z $text ]] || printf '# --- %s\n%s\n' "$1" "$text" | sed '2,$s/^/#   /'
}

# --- the work folder ----------------------------------------------------------------------------------------

# Short on purpose: a path of a Unix socket has at most 107 bytes.
make_work() {
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/shoal-clients.XXXXXX")
  mkdir "$WORK"/{logs,processes,facts,tmp,home}
  trap on_exit EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# A daemon that was killed or could not start may leave mounts: removing through them would remove what they show.
remove_work() {
  mounts_below_work | xargs -r umount --lazy 2>/dev/null || true
  if [[ ${KEEP:-0} == 1 || -n $(mounts_below_work) ]]; then
    printf '# kept: %s\n' "$WORK"
    return
  fi
  rm -rf --one-file-system "$WORK" 2>/dev/null || true
}

mounts_below_work() {
  awk -v below="$WORK/" 'index($2, below) == 1 { print $2 }' /proc/mounts | sort -r
}

# --- waits --------------------------------------------------------------------------------------------------

# await SECONDS WHAT COMMAND...: polls until the command succeeds; fails with a clear message at the bound.
await() {
  local seconds=$1 what=$2 deadline
  shift 2
  deadline=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= deadline)); then
      printf 'why: %s did not happen within %s s\n' "$what" "$seconds"
      return 1
    fi
    sleep 0.1
  done
}

# free_ports COUNT: distinct ports of 127.0.0.1 that are free for TCP and UDP. They are below the ephemeral range,
# so that no outgoing connection takes one before its owner binds it.
free_ports() {
  python3 - "$1" <<'PYTHON'
import random, socket, sys

def is_free(port):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True

candidates = random.sample(range(20000, 32000), 12000)
free = (port for port in candidates if is_free(port))
print(*(next(free) for _ in range(int(sys.argv[1]))))
PYTHON
}

# --- processes ----------------------------------------------------------------------------------------------

# start NAME COMMAND...: runs a daemon; its log, process id and exit status go below $WORK. A keeper waits for it,
# so that any check, also in a subshell, can see how it ended.
start() {
  local name=$1 state="$WORK/processes/$1"
  shift
  rm -f "$state".pid "$state".status
  echo "$name" >>"$WORK/processes/started"
  (
    "$@" >>"$WORK/logs/$name.log" 2>&1 </dev/null &
    echo $! >"$state.pid"
    status=0
    wait $! || status=$?
    echo "$status" >"$state.status"
  ) >/dev/null 2>&1 &
  await 5 "the start of $name" test -s "$state.pid"
}

is_running() {
  [[ -s $WORK/processes/$1.pid && ! -e $WORK/processes/$1.status ]]
}

has_ended() {
  [[ -s $WORK/processes/$1.status ]]
}

signal() {
  kill -s "$1" "$(<"$WORK/processes/$2.pid")" 2>/dev/null || true
}

# ready_or_ended NAME COMMAND...: true when the command succeeds, and also when waiting longer is pointless.
ready_or_ended() {
  local name=$1
  shift
  ! is_running "$name" || "$@"
}

# await_ready SECONDS NAME COMMAND...: waits until a started daemon answers, or says why it ended.
await_ready() {
  local seconds=$1 name=$2
  shift 2
  await "$seconds" "the readiness of $name" ready_or_ended "$name" "$@" || return 1
  is_running "$name" && return 0
  printf 'why: %s ended with status %s: %s\n' "$name" "$(<"$WORK/processes/$name.status")" \
    "$(tail -n 1 "$WORK/logs/$name.log" | cut -c 1-300)"
  return 1
}

# ends_cleanly NAME SECONDS: SIGTERM ends the process within the bound, with status 0.
ends_cleanly() {
  local name=$1 seconds=$2 status
  is_running "$name" || fail "$name had already ended"
  signal TERM "$name"
  await "$seconds" "the end of $name after SIGTERM" has_ended "$name"
  status=$(<"$WORK/processes/$name.status")
  [[ $status == 0 ]] || fail "$name ended with status $status after SIGTERM"
}

# Stops what is still running, the last started first: a client before what it stands on.
stop_all() {
  local name
  [[ -e $WORK/processes/started ]] || return 0
  for name in $(tac "$WORK/processes/started"); do
    is_running "$name" || continue
    signal TERM "$name"
    await 15 "the end of $name" has_ended "$name" >/dev/null || signal KILL "$name"
  done
}
