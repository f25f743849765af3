#!/usr/bin/env bash
# Runs the Autobahn testsuite against a WebSocket server or a WebSocket client, and judges the
# result.
#
#     run.sh server --url ws://127.0.0.1:9001/echo --out DIR [options]
#     run.sh client --out DIR [options] -- COMMAND...
#
# server  wstest plays the client against an echo server that is listening already: it connects
#         once per case to the address at --url, which may use any path, and expects every text and
#         binary message back.  With wss:// it does so over TLS, and takes any certificate.
# client  wstest plays the server, and the command is the client.  It is run once per job, with
#         every word 'URL' in it replaced by the address of the job's server; the address is also
#         in $AUTOBAHN_URL, and the name to report under in $AUTOBAHN_AGENT.  It has to
#             connect to URL/getCaseCount and read one text message, N;
#             for i in 1..N connect to URL/runCase?case=i&agent=NAME and send every text and binary
#             message back until the connection ends;
#             end, with status 0.
#         The reports are asked for here, so a client that dies half-way is reported on too.
#
# Options
#   --profile NAME    plain  every case without compression: sections 1 to 7, 9 and 10; 301 cases
#                     ci     besides, the shorter ones of 12 and 13: 1000 messages of up to 16 KiB
#                            each, and of 8 KiB in fragments; 397 cases
#                     full   every case; 517 (default)
#   --cases LIST      case patterns, comma-separated ('1.*,6.4.2'); replaces the profile's
#   --exclude LIST    patterns to leave out, on top of the profile's
#   --jobs N          wstest processes at once, each with its share of the cases (default 2)
#   --agent NAME      name in the report (default: testee)
#   --venv DIR        where setup.sh put wstest (default as in setup.sh); made when missing
#   --timeout SECS    for the whole run (default 1200); past it everything is ended and it fails
#   --strict          a NON-STRICT case fails too
#
# Exit status: 0 all passed; 1 a case failed, or the client failed; 2 no report or too few cases;
# 64 wrong arguments; 124 out of time; what setup.sh says (3, 4, 5) when wstest cannot be had.
# The last line on standard output is 'N passed, N failed'.
# DIR/shard-*/index.html is wstest's own report, DIR/summary.json ours.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

bad() { printf 'autobahn: %s\n' "$*" >&2; exit 64; }
say() { printf 'autobahn: %s\n' "$*"; }

role=${1:-}
[[ "$role" == server || "$role" == client ]] || {
  sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
  exit 64
}
shift
url='' out='' profile=full cases='' exclude='' jobs=2 agent=testee limit=1200 judge=() command=()
venv=${AUTOBAHN_VENV:-$HOME/.cache/autobahn-venv}
while (($#)); do
  [[ "$1" == --strict || "$1" == -- || $# -gt 1 ]] || bad "$1 needs a value"
  case $1 in
    --url) url=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --profile) profile=$2; shift 2 ;;
    --cases) cases=$2; shift 2 ;;
    --exclude) exclude=$2; shift 2 ;;
    --jobs) jobs=$2; shift 2 ;;
    --agent) agent=$2; shift 2 ;;
    --venv) venv=$2; shift 2 ;;
    --timeout) limit=$2; shift 2 ;;
    --strict) judge+=(--strict); shift ;;
    --) shift; command=("$@"); break ;;
    *) bad "unknown argument $1" ;;
  esac
done
[[ -n "$out" ]] || bad "--out is needed"
[[ "$jobs" =~ ^[1-9]$ ]] || bad "--jobs is a number from 1 to 9"
port=0
if [[ "$role" == server ]]; then
  # Loopback only: this never talks to another machine.
  [[ "$url" =~ ^wss?://(127\.0\.0\.1|localhost):([0-9]+)(/.*)?$ ]] || bad "--url must be ws(s)://127.0.0.1:PORT[/PATH]"
  port=${BASH_REMATCH[2]}
  ((${#command[@]} == 0)) || bad "a server is listening already, it takes no command"
else
  [[ -z "$url" ]] || bad "a client is told its --url, it tells none"
  ((${#command[@]})) || bad "a client needs a command behind --"
fi

# Of each group of 18 cases those that take more than a second: messages of 32 KiB and more, and
# all in fragments but the smallest.
slow=8,9,10,12,13,14,15,16,17,18
skip=''
case $profile in
  plain) skip='12.*,13.*' ;;
  ci) for section in 12 13; do for case in ${slow//,/ }; do skip+="$section.*.$case,"; done; done ;;
  full) ;;
  *) bad "no profile $profile; there are plain, ci and full" ;;
esac
[[ -z "$cases" ]] || skip=''

if [[ ! -x "$venv/bin/wstest" ]]; then
  say "no wstest in $venv, installing it"
  "$here/setup.sh" "$venv"
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -rf "$out"/shard-* "$out"/summary.json

servers=() workers=()
# shellcheck disable=SC2317  # called by the trap
finish() {
  local process
  for process in "${workers[@]}" "${servers[@]}"; do kill "$process" 2>/dev/null || true; done
  wait
}
trap finish EXIT
trap 'exit 143' TERM INT HUP

# Which cases, and which process runs which: ask the suite itself for the list, then deal the
# cases out by the seconds each takes, longest first.
"$venv/bin/python" - "$out" "$jobs" "${cases:-*}" "$skip,$exclude" "$role" "$url" "$agent" <<'PY' >"$out/plan.txt" || exit 64
import json, os, socket, sys
from autobahntestsuite.case import Cases, CaseCategories, CaseSubCategories, CaseSetname, CaseBasename
from autobahntestsuite.caseset import CaseSet
out, jobs, want, skip, role, url, agent = sys.argv[1:]
jobs = int(jobs)
words = lambda s: [w for w in s.replace(",", " ").split() if w]
every = CaseSet(CaseSetname, CaseBasename, Cases, CaseCategories, CaseSubCategories)
ids = every.parseSpecCases({"cases": words(want), "exclude-cases": words(skip)})
unknown = [i for i in ids if i not in every.CasesById]
if unknown or not ids:
    sys.exit("autobahn: no such case: %s" % " ".join(unknown or words(want)))
# Seconds.  The waits in 5 and 6.4 are the suite's own; in 12 and 13 a case is 1000 messages, and
# the suite's own compression takes most of the time.
DEFLATE = {8: 1.2, 9: 2.3, 10: 4.5, 11: .6, 12: .9, 13: 1.5, 14: 2.6, 15: 5., 16: 4.7, 17: 4.6, 18: 4.4}
def cost(i):
    p = [int(x) for x in i.split(".")]
    if p[0] in (12, 13):
        return DEFLATE.get(p[2], .4)
    if i.startswith("6.4."):
        return 1.5
    if i in ("5.19", "5.20"):
        return 1.
    return .12 if p[0] == 9 else .02
shards, load = [[] for _ in range(jobs)], [0.] * jobs
for i in sorted(ids, key=cost, reverse=True):
    k = load.index(min(load))
    shards[k].append(i)
    load[k] += cost(i)
ports = []                                 # held until all are known, so that they differ
for k, shard in enumerate(shards):
    if not shard:
        continue
    d = os.path.join(out, "shard-%d" % k)
    os.makedirs(d)
    shard.sort(key=lambda i: [int(x) for x in i.split(".")])
    spec = {"outdir": d, "cases": shard, "exclude-cases": [], "exclude-agent-cases": {}}
    port = 0
    if role == "server":
        spec["servers"] = [{"agent": agent, "url": url}]
    else:
        ports.append(socket.socket())
        ports[-1].bind(("127.0.0.1", 0))
        port = ports[-1].getsockname()[1]
        spec["url"] = "ws://127.0.0.1:%d" % port
    json.dump(spec, open(os.path.join(d, "spec.json"), "w"), indent=1)
    print "%d %d %d" % (k, len(shard), port)
PY
total=$(awk '{n += $2} END {print n}' "$out/plan.txt")
say "$role $agent${url:+ at $url}: $total cases in $(wc -l <"$out/plan.txt") job(s)"

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

await_port() {
  local port=$1 process=$2 tick
  for ((tick = 0; tick < 300; tick++)); do
    ! listens "$port" || return 0
    kill -0 "$process" 2>/dev/null || break
    sleep 0.1
  done
  return 1
}

# Closing this connection is what makes wstest write its reports; its Close comes behind them.
ask_for_reports() {
  python3 - "$1" "$agent" <<'PY'
import socket, sys, urllib.parse
port, agent = int(sys.argv[1]), urllib.parse.quote(sys.argv[2])
stream = socket.create_connection(("127.0.0.1", port), 30)
stream.settimeout(60)
stream.sendall(("GET /updateReports?agent=%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n" % (agent, port)).encode())
data = b""
while b"\r\n\r\n\x88" not in data:
    more = stream.recv(65536)
    if not more:
        sys.exit(1)
    data += more
stream.sendall(b"\x88\x80\0\0\0\0")
PY
}

started=$SECONDS late=0 rc=0 client_failed=0
if [[ "$role" == server ]]; then
  listens "$port" || { say "nothing listens on port $port" >&2; exit 2; }
fi
wstest=("$venv/bin/python" "$here/wstest.py")
if [[ "$role" == client ]]; then
  # All of them before the first client connects: its end of a connection could take the port of the next.
  while read -r shard _ port; do
    at=$out/shard-$shard
    # -u 0: without the web server, which would take a port that nobody chose.
    "${wstest[@]}" -m fuzzingserver -u 0 -s "$at/spec.json" >"$at/wstest.log" 2>&1 </dev/null &
    servers+=($!)
    await_port "$port" $! || { say "wstest does not listen: $(tail -n 1 "$at/wstest.log")" >&2; exit 2; }
  done <"$out/plan.txt"
fi
while read -r shard _ port; do
  at=$out/shard-$shard
  if [[ "$role" == server ]]; then
    timeout "$limit" "${wstest[@]}" -m fuzzingclient -s "$at/spec.json" >"$at/wstest.log" 2>&1 </dev/null &
  else
    address=ws://127.0.0.1:$port
    words=()
    for word in "${command[@]}"; do [[ "$word" == URL ]] && words+=("$address") || words+=("$word"); done
    AUTOBAHN_URL=$address AUTOBAHN_AGENT=$agent \
      timeout "$limit" "${words[@]}" >"$at/client.log" 2>&1 </dev/null &
  fi
  workers+=($!)
done <"$out/plan.txt"
for worker in "${workers[@]}"; do
  rc=0
  wait "$worker" || rc=$?
  if ((rc == 124)); then late=1; fi
  if [[ "$role" == client ]] && ((rc)); then client_failed=$rc; fi
done
workers=()
if [[ "$role" == client ]]; then
  while read -r _ _ port; do
    ask_for_reports "$port" || say "the server on port $port gave no report" >&2
  done <"$out/plan.txt"
fi
say "ran for $((SECONDS - started)) s"
if ((late)); then say "out of time ($limit s)" >&2; fi

rc=0
python3 "$here/summary.py" "$out"/shard-* --expect "$total" --json "$out/summary.json" "${judge[@]}" || rc=$?
((late)) && exit 124
if ((client_failed)); then
  say "the client ended with status $client_failed: $(tail -qn 1 "$out"/shard-*/client.log | head -n 1)" >&2
  ((rc)) || rc=1
fi
exit "$rc"
