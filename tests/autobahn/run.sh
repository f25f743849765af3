#!/usr/bin/env bash
# Runs the Autobahn testsuite against a WebSocket echo server that is listening already, and
# judges the result.
#
#     run.sh --url ws://127.0.0.1:9001/echo --out DIR [options]
#
# wstest plays the client: it connects once per case to the address at --url, which may use any
# path, and expects every text and binary message back.
#
# Options
#   --cases LIST      case patterns, comma-separated ('1.*,6.4.2').  The default is every case
#                     without compression: sections 1 to 7, 9 and 10, 301 cases, 8 to 20 s.
#   --exclude LIST    patterns to leave out
#   --jobs N          wstest processes at once, each with its share of the cases (default 2)
#   --agent NAME      name in the report (default: testee)
#   --venv DIR        where setup.sh put wstest (default as in setup.sh); made when missing
#   --timeout SECS    for the whole run (default 300); past it everything is ended and it fails
#   --strict          a NON-STRICT case fails too
#
# Exit status: 0 all passed; 1 a case failed; 2 no report or too few cases; 64 wrong arguments;
# 124 out of time; what setup.sh says (3, 4, 5) when wstest cannot be had.
# The last line on standard output is 'N passed, N failed'.
# DIR/shard-*/index.html is wstest's own report, DIR/summary.json ours.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

bad() { printf 'autobahn: %s\n' "$*" >&2; exit 64; }
say() { printf 'autobahn: %s\n' "$*"; }

url='' out='' cases='' exclude='' jobs=2 agent=testee limit=300 judge=()
venv=${AUTOBAHN_VENV:-$HOME/.cache/autobahn-venv}
while (($#)); do
  [[ "$1" == --strict || $# -gt 1 ]] || bad "$1 needs a value"
  case $1 in
    --url) url=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --cases) cases=$2; shift 2 ;;
    --exclude) exclude=$2; shift 2 ;;
    --jobs) jobs=$2; shift 2 ;;
    --agent) agent=$2; shift 2 ;;
    --venv) venv=$2; shift 2 ;;
    --timeout) limit=$2; shift 2 ;;
    --strict) judge+=(--strict); shift ;;
    *) bad "unknown argument $1" ;;
  esac
done
[[ -n "$url" && -n "$out" ]] || bad "--url and --out are needed"
# Loopback only: this never talks to another machine.
[[ "$url" =~ ^ws://(127\.0\.0\.1|localhost):([0-9]+)(/.*)?$ ]] || bad "--url must be ws://127.0.0.1:PORT[/PATH]"
port=${BASH_REMATCH[2]}
[[ "$jobs" =~ ^[1-9]$ ]] || bad "--jobs is a number from 1 to 9"
[[ -n "$cases" ]] || { cases='*'; exclude="12.*,13.*,$exclude"; }

if [[ ! -x "$venv/bin/wstest" ]]; then
  say "no wstest in $venv, installing it"
  "$here/setup.sh" "$venv"
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -rf "$out"/shard-* "$out"/summary.json

workers=()
# shellcheck disable=SC2317  # called by the trap
finish() {
  local worker
  for worker in "${workers[@]}"; do kill "$worker" 2>/dev/null || true; done
}
trap finish EXIT
trap 'exit 143' TERM INT HUP

# Which cases, and which process runs which: ask the suite itself for the list, then deal the
# cases out by the seconds each takes, longest first.
"$venv/bin/python" - "$out" "$jobs" "$cases" "$exclude" "$url" "$agent" <<'PY' >"$out/plan.txt" || exit 64
import json, os, sys
from autobahntestsuite.case import Cases, CaseCategories, CaseSubCategories, CaseSetname, CaseBasename
from autobahntestsuite.caseset import CaseSet
out, jobs, want, skip, url, agent = sys.argv[1:]
jobs = int(jobs)
words = lambda s: [w for w in s.replace(",", " ").split() if w]
every = CaseSet(CaseSetname, CaseBasename, Cases, CaseCategories, CaseSubCategories)
ids = every.parseSpecCases({"cases": words(want), "exclude-cases": words(skip)})
unknown = [i for i in ids if i not in every.CasesById]
if unknown or not ids:
    sys.exit("autobahn: no such case: %s" % " ".join(unknown or words(want)))
def cost(i):                               # seconds; the waits in these cases are the suite's own
    if i.startswith("6.4."):
        return 1.5
    if i in ("5.19", "5.20"):
        return 1.
    return .12 if i.startswith("9.") else .02
shards, load = [[] for _ in range(jobs)], [0.] * jobs
for i in sorted(ids, key=cost, reverse=True):
    k = load.index(min(load))
    shards[k].append(i)
    load[k] += cost(i)
for k, shard in enumerate(shards):
    if not shard:
        continue
    d = os.path.join(out, "shard-%d" % k)
    os.makedirs(d)
    shard.sort(key=lambda i: [int(x) for x in i.split(".")])
    spec = {"outdir": d, "cases": shard, "exclude-cases": [], "exclude-agent-cases": {},
            "servers": [{"agent": agent, "url": url}]}
    json.dump(spec, open(os.path.join(d, "spec.json"), "w"), indent=1)
    print "%d %d" % (k, len(shard))
PY
total=$(awk '{n += $2} END {print n}' "$out/plan.txt")
say "$agent at $url: $total cases in $(wc -l <"$out/plan.txt") job(s)"

(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { say "nothing listens on port $port" >&2; exit 2; }
started=$SECONDS late=0
while read -r shard _; do
  timeout "$limit" "$venv/bin/wstest" -m fuzzingclient -s "$out/shard-$shard/spec.json" \
    >"$out/shard-$shard/wstest.log" 2>&1 </dev/null &
  workers+=($!)
done <"$out/plan.txt"
for worker in "${workers[@]}"; do
  rc=0
  wait "$worker" || rc=$?
  ((rc != 124)) || late=1
done
workers=()
say "ran for $((SECONDS - started)) s"
if ((late)); then say "out of time ($limit s)" >&2; fi

rc=0
python3 "$here/summary.py" "$out"/shard-* --expect "$total" --json "$out/summary.json" "${judge[@]}" || rc=$?
((late)) && exit 124
exit "$rc"
