#!/usr/bin/env bash
# Runs the tests that need more than the Rust toolchain: the Autobahn testsuite, a real browser
# against the showcase, on one node and on two, WebSocket libraries of other languages over HTTP/1.1
# and HTTP/2, real proxies before a server, and real brokers between nodes.
#
#     tests/full.sh                     every part
#     tests/full.sh browser             that part
#     tests/full.sh autobahn            every part whose name begins with 'autobahn:'
#     tests/full.sh --list              the names of the parts
#
# What a part needs and the machine lacks is installed by name: Debian packages with apt-get when
# root, Python packages into a virtual environment, npm packages into a directory of their own
# (both under ~/.cache, so the next run starts at once).  What cannot be had is said plainly: the
# part 'could not run', and that fails the whole unless it was allowed.
#
# The last lines are a table of the parts and 'N passed, N failed, N skipped', where skipped are
# those that could not run.
#
# Exit status: 0 every part passed (or could not run and was allowed not to); 1 otherwise; 64 wrong
# arguments.
#
# Variables
#     FULL_MAY_SKIP     parts that may be unable to run, as on the command line; 'all' for every one
#     FULL_AUTOBAHN     'ci' for the shorter of Autobahn's compression cases only, 'full' for all of
#                       them (default: full, and ci for the blocking client; .ci/run says ci).  The
#                       table in the README is that of 'full'
#     FULL_OUT          directory for logs, reports and screenshots (default: full/ in Cargo's
#                       target directory, emptied first)
#     CHROMIUM          the browser (default: chromium from the PATH, else Debian's package)
#     AUTOBAHN_PYTHON   a Python 2.7, which the Autobahn testsuite needs
#     AUTOBAHN_VENV     where the Autobahn testsuite is installed (default ~/.cache/autobahn-venv)
#
# A program under test is an example of this workspace.  It is built with its release profile and
# started with '--listen 127.0.0.1:0'; it has to print one line with http://ADDRESS, ws://ADDRESS or
# the same with https or wss once it listens (the real port, not 0), and to end on SIGTERM.  A panic
# in its output fails the part, and so does a process that is still there afterwards.
# shellcheck disable=SC2317  # the parts are called by name
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=.ci/processes.sh
. .ci/processes.sh

# NAME FUNCTION ARGUMENTS...  The parts, in the order in which they run.
# autobahn PROFILE EXAMPLE PATH ARGUMENTS...: an example that is a server; the suite's largest
#     message is 16 MiB.  The profile is 'plain' for no compression cases, 'ci' for the short ones,
#     'deflate' for what FULL_AUTOBAHN says, else all; 'brief' for the same, else the short ones.
# autobahn_client PROFILE EXAMPLE ARGUMENTS...: an example that is a client; 'URL' among its
#     arguments is the address to connect to.
# interop EXPECTED EXAMPLE PATH ARGUMENTS...: an example that is an echo server; 'deflate' if it has
#     to compress, else 'none'.
# interop_client: the clients against servers of other hands.
# program EXAMPLE OPTIONS...: the client at the command line, as whoever types at it sees it.
# browser, browser_tls: a real browser on the showcase; over TLS, with HTTP/2 and without.
# proxied PROXY PACKAGE: the tests through that proxy.
# brokered TESTS PACKAGE...: the hub across nodes over brokers, which the tests start and end.
# processes BROKER PACKAGE: the same with three servers in processes of their own.
# nodes BROKER PACKAGE: two nodes of the showcase over that broker, in the browser.
parts=(
  "autobahn:load_target autobahn deflate load_target / echo --max-message-size 16777216"
  "autobahn:tls autobahn plain load_target / echo --tls --max-message-size 16777216"
  "autobahn:engine autobahn ci engine /"
  "autobahn:axum autobahn plain axum /echo"
  "autobahn:client autobahn_client deflate client URL --autobahn"
  "autobahn:blocking autobahn_client brief client URL --autobahn --blocking"
  "browser:showcase browser"
  "browser:tls browser_tls"
  "interop:load_target interop deflate load_target / echo"
  "interop:client interop_client"
  "program:client program client"
  "program:blocking program client --blocking"
  "http2:plain http2 http"
  "http2:tls http2 https --tls"
  "proxies:nginx proxied nginx nginx"
  "proxies:haproxy proxied haproxy haproxy"
  "proxies:caddy proxied caddy caddy"
  "backplane:redis brokered redis redis-server"
  "backplane:nats brokered nats nats-server"
  "backplane:cluster brokered cluster redis-server nats-server"
  "processes:redis processes redis redis-server"
  "processes:nats processes nats nats-server"
  "nodes:redis nodes redis redis-server"
  "nodes:nats nodes nats nats-server"
)
playwright="playwright-core@1.64.1"
python_h2="h2==4.4.1"
ws="ws@8.23.0"
websockets="websockets==17.4"

# --- the parts: status 0 passed, 1 failed, 77 could not run; $why says more in either case ---

autobahn() {
  local example=$2 path=$3 profile report=$out/${name/:/-} rc=0
  profile=$(autobahn_profile "$1")
  shift 3
  need_autobahn || return
  build "$example" || return
  serve "$example" "$@" || return
  in_group tests/autobahn/run.sh server --strict --profile "$profile" --url "${scheme/http/ws}://$address$path" \
    --agent "${name#*:}" --out "$report" >"$report.log" 2>&1 || rc=$?
  autobahn_verdict "$report" "$rc"
  end_server || return
  ((rc == 0)) || return 1
}

autobahn_client() {
  local example=$2 profile report=$out/${name/:/-} rc=0
  profile=$(autobahn_profile "$1")
  shift 2
  need_autobahn || return
  build "$example" || return
  in_group tests/autobahn/run.sh client --strict --profile "$profile" --agent "${name#*:}" --out "$report" \
    -- "$program" "$@" >"$report.log" 2>&1 || rc=$?
  autobahn_verdict "$report" "$rc"
  if grep -n 'panicked at' "$report"/shard-*/client.log >&2; then why="the client panicked. $why" rc=1; fi
  ((rc == 0)) || return 1
}

# 'deflate' and 'brief' are what FULL_AUTOBAHN says, if it does.
autobahn_profile() {
  case $1 in
    deflate) echo "${FULL_AUTOBAHN:-full}" ;;
    brief) echo "${FULL_AUTOBAHN:-ci}" ;;
    *) echo "$1" ;;
  esac
}

# Shows the report, and sets $why.
autobahn_verdict() {
  local report=$1 rc=$2
  cat "$report.log"
  why="$(sed -n 's/^verdicts: //p' "$report.log")"
  ((rc == 0)) || why="status $rc, $(last_line "$report.log"), ${why:-no report}; see $report"
}

interop() {
  local expected=$1 example=$2 path=$3 report=$out/${name/:/-} rc=0 failed=0 client
  shift 3
  need_peers || return
  build "$example" || return
  serve "$example" "$@" || return
  why=''
  for client in "$venv/bin/python tests/peers/websockets_client.py" "node tests/peers/ws_client.cjs"; do
    rc=0
    # shellcheck disable=SC2086  # it is two words
    in_group env NODE_PATH="$node_modules" timeout -k 10 600 $client --url "ws://$address$path" --expect "$expected" \
      >"$report.log" 2>&1 || rc=$?
    cat "$report.log"
    why+="${why:+; }${client##*/}: $(last_line "$report.log")"
    ((rc == 0)) || failed=1
  done
  end_server || return
  ((failed == 0)) || return 1
}

interop_client() {
  need_peers || return
  ignored_tests client_interop ''
}

program() {
  local example=$1 report=$out/${name/:/-}.log rc=0
  shift
  need_peers || return
  need_command openssl openssl || return
  build "$example" || return
  in_group timeout -k 10 600 "$venv/bin/python" tests/peers/client_program.py "$program" "$@" >"$report" 2>&1 || rc=$?
  cat "$report"
  why="$(last_line "$report")"
  ((rc == 0)) || { why="status $rc, $why; see $report"; return 1; }
}

proxied() {
  local proxy=$1 package=$2
  need_service "$proxy" "$package" || return
  ignored_tests proxies "$proxy::"
}

brokered() {
  local tests=$1 package
  shift
  for package in "$@"; do need_service "$package" "$package" || return; done
  ignored_tests backplane_brokers "$tests::"
}

processes() {
  local broker=$1 package=$2
  need_service "$package" "$package" || return
  build load_target || return
  ignored_tests backplane_processes "$broker::"
}

nodes() {
  local kind=$1 package=$2 report=$out/${name/:/-} rc=0 ended=0 broker one one_log one_url
  need_service "$package" "$package" || return
  start_broker "$kind" || return
  suffix=-one browsed --backplane "$broker_url" || { rc=$?; stop "$broker" || true; return "$rc"; }
  one=$server one_log=$log one_url=http://$address
  sleep 2 # its counter would be ahead of one that the other has for itself
  suffix=-two serve showcase --backplane "$broker_url" || return
  in_group env NODE_PATH="$node_modules" timeout -k 10 600 node tests/browser/nodes.cjs --url "$one_url" \
    --url "http://$address" --chromium "$browser" --screenshots "$report" >"$report.log" 2>&1 || rc=$?
  cat "$report.log"
  ((rc == 0)) && why="$(last_line "$report.log"), screenshots in $report" || why="status $rc, $(last_line "$report.log")"
  end_server || ended=1
  server=$one log=$one_log
  end_server || ended=1
  stop "$broker" || true
  ((rc == 0 && ended == 0)) || return 1
}

browser() {
  local report=$out/browser rc=0 ended=0 lasting lasting_log lasting_url
  browsed || return
  lasting=$server lasting_log=$log lasting_url=http://$address
  # Boards of another one do not outlive the checks: short enough to wait for their end.
  suffix=-ending serve showcase --board-lifetime 20 || return
  in_group env NODE_PATH="$node_modules" timeout -k 10 600 node tests/browser/showcase.cjs \
    --url "$lasting_url" --ending-url "http://$address" --board-lifetime 20 \
    --chromium "$browser" --screenshots "$report" >"$report.log" 2>&1 || rc=$?
  cat "$report.log"
  ((rc == 0)) && why="$(last_line "$report.log"), screenshots in $report" || why="status $rc, $(last_line "$report.log")"
  end_server || ended=1
  server=$lasting log=$lasting_log
  end_server || ended=1
  ((rc == 0 && ended == 0)) || return 1
}

browser_tls() {
  local report=$out/browser-tls.log rc=0
  browsed --tls || return
  in_group env NODE_PATH="$node_modules" timeout -k 10 600 node tests/browser/tls.cjs \
    --url "https://$address" --chromium "$browser" >"$report" 2>&1 || rc=$?
  cat "$report"
  ((rc == 0)) && why="$(last_line "$report")" || why="status $rc, $(last_line "$report")"
  end_server || return
  ((rc == 0)) || return 1
}

# The showcase with these options, and all that a browser needs.
browsed() {
  need_browser || return
  need_command node nodejs || return
  need_command npm npm || return
  need_playwright || return
  build showcase || return
  serve showcase "$@" || return
}

# WebSockets over HTTP/2, by clients that are not ours.
http2() {
  local scheme=$1 report=$out/http2-$1.log rc=0
  shift
  need_python_h2 || return
  need_command node nodejs || return
  build showcase || return
  serve showcase "$@" || return
  in_group timeout -k 10 300 "$python" tests/peers/h2_client.py "$scheme://$address" >"$report" 2>&1 || rc=$?
  in_group timeout -k 10 300 node tests/peers/http2_client.cjs "$scheme://$address" >>"$report" 2>&1 || rc=$?
  cat "$report"
  ((rc == 0)) && why="python h2 and node" || why="$(grep -v '^ok' "$report" | head -n 1)"
  end_server || return
  ((rc == 0)) || return 1
}

# --- what the parts are made of; each returns what a part returns and sets $why ---

# Runs the ignored tests of a test target whose names begin like that; they may use what need_peers
# found.  One at a time: they measure times, and count what the process has open.
ignored_tests() {
  local target=$1 prefix=$2 report=$out/${name/:/-}.log rc=0
  in_group env WS_TESTS_PYTHON="${venv:+$venv/bin/python}" NODE_PATH="${node_modules:-}" \
    WS_TESTS_LOAD_TARGET="${program:-}" timeout -k 10 900 \
    cargo test --quiet --package ws-tests --test "$target" -- --ignored --test-threads=1 "$prefix" \
    >"$report" 2>&1 || rc=$?
  cat "$report"
  why="$(sed -n 's/^test result: //p' "$report")"
  ((rc == 0)) || { why="status $rc, ${why:-no result}; see $report"; return 1; }
}

# The example's program in $program.
build() {
  program=$target/release/examples/$1
  in_group cargo build --release --example "$1" || {
    why="the example $1 does not build"
    return 1
  }
}

# Starts $program with these arguments; sets $address and $scheme once it listens.  $suffix tells its
# log from that of another one.
serve() {
  local example=$1 tick line
  log=$out/$example${suffix:-}.log
  shift
  start "$log" "$program" "$@" --listen 127.0.0.1:0
  # shellcheck disable=SC2154  # set by start
  server=$started
  for ((tick = 0; tick < 300; tick++)); do
    # 'read' fails on a line whose end has not arrived yet.
    while IFS= read -r line; do
      if [[ "$line" =~ (https?|wss?)://([0-9.]+:[0-9]+) ]]; then
        scheme=${BASH_REMATCH[1]} address=${BASH_REMATCH[2]}
        [[ "$address" != *:0 ]] || break 2
        say "$example listens on $address"
        return 0
      fi
    done <"$log"
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 20 "$log" >&2
  why="$example did not print the address it listens on; its last line: $(last_line "$log")"
  stop "$server" || true
  return 1
}

# Starts that broker; sets $broker, and $broker_url.
start_broker() {
  local port attempt tick
  for ((attempt = 0; attempt < 5; attempt++)); do
    port=$((20000 + RANDOM % 10000))
    case $1 in
      redis) start "$out/$1.log" redis-server --bind 127.0.0.1 --port "$port" --save '' --dir "$TMPDIR" ;;
      nats) start "$out/$1.log" nats-server -a 127.0.0.1 -p "$port" ;;
    esac
    broker=$started broker_url=$1://127.0.0.1:$port
    # That somebody listens there does not say who: its own word counts.
    for ((tick = 0; tick < 300; tick++)); do
      kill -0 "$broker" 2>/dev/null || break # somebody else has the port
      if grep -q -e 'Ready to accept connections' -e 'Server is ready' "$out/$1.log"; then return 0; fi
      sleep 0.1
    done
    stop "$broker" || true
  done
  why="$1 does not listen: $(last_line "$out/$1.log")"
  return 1
}

# Ends the server; a server that died, hangs or panicked fails the part, whatever was found before.
end_server() {
  if ! kill -0 "$server" 2>/dev/null; then
    why="the server died: $(last_line "$log"). $why"
    stop "$server" || true
    return 1
  fi
  stop "$server" || { why="the server did not end on SIGTERM. $why"; return 1; }
  if grep -n 'panicked at' "$log" >&2; then why="the server panicked, see $log. $why"; return 1; fi
}

# The command, or the Debian packages that have it.
need_command() {
  local name=$1
  shift
  command -v "$name" >/dev/null && return
  apt_install "$@" && hash -r && command -v "$name" >/dev/null && return
  why="there is no $name here, and the package $* cannot be installed: $(last_line "$out/apt.log")"
  return 77
}

apt_install() {
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120)
  if ! command -v apt-get >/dev/null; then echo "no apt-get" >"$out/apt.log"; return 1; fi
  if ((EUID != 0)); then echo "not root" >"$out/apt.log"; return 1; fi
  say "installing $*"
  { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "$@"; } >"$out/apt.log" 2>&1 </dev/null
}

# The Autobahn testsuite.
need_autobahn() {
  need_command python3 python3 || return
  need_command cc gcc || return
  in_group tests/autobahn/setup.sh >"$out/autobahn-setup.log" 2>&1 || {
    why="the Autobahn testsuite cannot be installed: $(last_line "$out/autobahn-setup.log")"
    return 77
  }
}

# A program that Debian would start as a service when it is installed.  This one installs it for
# the tests alone: policy-rc.d (invoke-rc.d(8)) keeps the service from being started now.
need_service() {
  local policy=/usr/sbin/policy-rc.d rc=0 made=0
  command -v "$1" >/dev/null && return
  if ((EUID == 0)) && [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=1
  fi
  need_command "$@" || rc=$?
  ((made == 0)) || rm -f "$policy"
  return "$rc"
}

# The libraries that tests/peers drives: Python's in $venv, Node's in $node_modules.
need_peers() {
  local pip_log=$out/pip.log
  need_command python3 python3 || return
  need_command node nodejs || return
  need_command npm npm || return
  venv=${XDG_CACHE_HOME:-$HOME/.cache}/${websockets/==/-}
  if ! "$venv/bin/python" -c 'import websockets.asyncio.client' 2>/dev/null; then
    python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv || true
    say "installing $websockets"
    rm -rf "$venv"
    { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet "$websockets"; } >"$pip_log" 2>&1 </dev/null || {
      why="$websockets cannot be installed: $(last_line "$pip_log")"
      return 77
    }
  fi
  need_npm "$ws" ws
}

# A Chromium in $browser, and at least one font for it.
need_browser() {
  browser=${CHROMIUM:-}
  if [[ -n "$browser" ]]; then
    command -v "$browser" >/dev/null || { why="CHROMIUM=$browser is no program"; return 77; }
  else
    need_command chromium chromium fonts-dejavu-core || return
    browser=chromium
  fi
  browser=$(command -v "$browser")
}

# The library that drives it, in $node_modules.  It brings no browser of its own.
need_playwright() { need_npm "$playwright" playwright-core; }

# A package of npm, in $node_modules; 'require' takes NAME.
need_npm() {
  local package=$1 module=$2 at=${XDG_CACHE_HOME:-$HOME/.cache}/${1/@/-} npm_log=$out/npm.log
  node_modules=$at/node_modules
  NODE_PATH=$node_modules node -e "require('$module')" 2>/dev/null && return
  say "installing $package"
  rm -rf "$at" && mkdir -p "$at" &&
    PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm install --no-save --no-package-lock --no-audit --no-fund --ignore-scripts \
      --prefix "$at" "$package" >"$npm_log" 2>&1 </dev/null &&
    NODE_PATH=$node_modules node -e "require('$module')" >>"$npm_log" 2>&1 && return
  why="$package cannot be installed: $(last_line "$npm_log")"
  return 77
}

# A Python that has the package h2, in $python.
need_python_h2() {
  local at=${XDG_CACHE_HOME:-$HOME/.cache}/python-${python_h2/==/-} pip_log=$out/pip.log
  python=$at/bin/python
  "$python" -c 'import h2' 2>/dev/null && return
  need_command python3 python3 python3-venv || return
  say "installing $python_h2"
  { rm -rf "$at" && python3 -m venv "$at" && "$python" -m pip install -q "$python_h2"; } >"$pip_log" 2>&1 </dev/null &&
    "$python" -c 'import h2' >>"$pip_log" 2>&1 && return
  why="$python_h2 cannot be installed: $(last_line "$pip_log")"
  return 77
}

say() { printf 'full: %s\n' "$*"; }
# shellcheck disable=SC2016  # sed's $, not the shell's
last_line() { sed -n '/[^[:space:]]/h; ${x;p}' "$1" 2>/dev/null | cut -c1-160; }

# matches NAME WORD...: whether one of the words is the name, or what stands before its colon.
matches() {
  local name=$1 word
  shift
  for word in "$@"; do [[ "$word" == "$name" || "$word" == "${name%%:*}" ]] && return; done
  return 1
}

# --- arguments ---

names=()
for part in "${parts[@]}"; do names+=("${part%% *}"); done
wanted=()
for argument in "$@"; do
  case $argument in
    --list) printf '%s\n' "${names[@]}"; exit 0 ;;
    -*) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 64 ;;
  esac
  known=0
  for name in "${names[@]}"; do ! matches "$name" "$argument" || known=1; done
  ((known)) || { printf 'full: no part %s; there are: %s\n' "$argument" "${names[*]}" >&2; exit 64; }
  wanted+=("$argument")
done
((${#wanted[@]})) || wanted=("${names[@]}")
read -ra may_skip <<<"${FULL_MAY_SKIP:-}" || true

# --- run ---

case ${FULL_AUTOBAHN:-full} in
  ci | full) ;;
  *) echo "full: FULL_AUTOBAHN is 'ci' or 'full'" >&2; exit 64 ;;
esac

own_processes full
target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
out=${FULL_OUT:-$target/full}
[[ -n "${FULL_OUT:-}" ]] || rm -rf "$out"
mkdir -p "$out"
out=$(cd "$out" && pwd)

table=() passed=0 failed=0 skipped=0 bad=0
for part in "${parts[@]}"; do
  read -ra words <<<"$part"
  name=${words[0]}
  matches "$name" "${wanted[@]}" || continue
  printf '\n=== %s ===\n' "$name"
  why='' rc=0 since=$SECONDS
  "${words[@]:1}" || rc=$?
  end_survivors || { rc=1 why="left processes behind. $why"; }
  case $rc in
    0) result=passed passed=$((passed + 1)) ;;
    77)
      result='could not run' skipped=$((skipped + 1))
      matches "$name" "${may_skip[@]}" || [[ "${may_skip[*]}" == all ]] || bad=1
      ;;
    *) result=failed failed=$((failed + 1)) bad=1 ;;
  esac
  say "$name: $result${why:+: $why}"
  table+=("$(printf '%-22s %-13s %7d  %s' "$name" "$result" $((SECONDS - since)) "$why")")
done

printf '\n%-22s %-13s %7s  %s\n' part result seconds why
printf '%s\n' "${table[@]}"
if ((skipped && bad == 0)); then say "what could not run was allowed not to (FULL_MAY_SKIP)"; fi
printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
exit "$bad"
