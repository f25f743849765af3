#!/usr/bin/env python3
"""Summarise (and judge) the JSON report that one wstest run leaves behind.

    summary.py OUTDIR [OUTDIR ...] [--expect N] [--strict] [--json FILE] [--slowest K]

OUTDIR is a folder with wstest's index.json.  Several folders are merged (run.sh splits
a run over several wstest processes and hands all their folders in here).

Every case has two verdicts in the report: `behavior` (did the right messages travel) and
`behaviorClose` (did the connection end the right way).  They are judged as follows:

    OK                      passes
    INFORMATIONAL           passes in the three cases where the RFC leaves the behaviour open and
                            the suite only notes it (7.1.6, 7.13.1, 7.13.2); fails elsewhere
    NON-STRICT              passes, counted apart; with --strict it fails.  The behaviour is
                            conformant, but not the one the suite calls canonical.
    UNIMPLEMENTED, FAILED, UNCLEAN, WRONG CODE, FAILED BY CLIENT, NO_CLOSE, anything unknown
                            fails

So 301 cases that all pass with --strict are 298 OK and 3 INFORMATIONAL.

Exit status: 0 everything passed; 1 at least one case failed; 2 the report is missing, empty,
or has another number of cases than --expect (a run that died half-way must not look green).
The last line is 'N passed, N failed'; cases that are missing count as failed.
Python 3.8+, standard library only.
"""
import argparse
import json
import os
import sys

INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}
# the order in which columns are printed
KNOWN = ["OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED", "UNCLEAN", "WRONG CODE",
         "FAILED BY CLIENT", "NO_CLOSE", "FAILED", "MISSING"]
SECTIONS = {1: "Framing", 2: "Pings/Pongs", 3: "Reserved bits", 4: "Opcodes", 5: "Fragmentation",
            6: "UTF-8 handling", 7: "Close handling", 9: "Limits/performance", 10: "Auto-fragment",
            12: "Compression (data)", 13: "Compression (params)"}


def case_key(case_id):
    return tuple(int(p) if p.isdigit() else 0 for p in case_id.split("."))


def load(outdirs):
    """Returns {agent: {case: record}}, all folders merged."""
    merged = {}
    for outdir in outdirs:
        path = os.path.join(outdir, "index.json")
        try:
            with open(path, encoding="utf-8") as f:
                report = json.load(f)
        except (OSError, ValueError) as e:
            print("autobahn: no usable report in %s: %s" % (outdir, e), file=sys.stderr)
            sys.exit(2)
        for agent, cases in report.items():
            for case, rec in cases.items():
                rec = dict(rec)
                rec["dir"] = outdir
                merged.setdefault(agent, {})[case] = rec
    return merged


def why(rec):
    """The sentences wstest wrote about one case."""
    try:
        with open(os.path.join(rec["dir"], rec["reportfile"]), encoding="utf-8", errors="replace") as f:
            d = json.load(f)
    except (OSError, ValueError, KeyError):
        return ""
    return "%s | %s | close code seen: %s" % (d.get("result"), d.get("resultClose"), d.get("remoteCloseCode"))


def main():
    ap = argparse.ArgumentParser(description="judge a wstest report")
    ap.add_argument("outdirs", nargs="+")
    ap.add_argument("--expect", type=int, help="the number of cases the run must have")
    ap.add_argument("--strict", action="store_true", help="NON-STRICT fails")
    ap.add_argument("--json", dest="json_out", help="write the summary to this file as JSON too")
    ap.add_argument("--slowest", type=int, default=5, help="list this many slowest cases")
    args = ap.parse_args()

    report = load(args.outdirs)
    if not report or not any(report.values()):
        print("autobahn: the report holds no case", file=sys.stderr)
        return 2

    def verdict(case, value):
        if value == "INFORMATIONAL":
            return case in INFORMATIONAL
        return value == "OK" or (value == "NON-STRICT" and not args.strict)

    total_pass = total_fail = 0
    short = False
    out = {}
    for agent in sorted(report):
        cases = report[agent]
        rows, bad, nonstrict, info = {}, [], [], []
        for case in sorted(cases, key=case_key):
            rec = cases[case]
            beh, clo = rec.get("behavior", "MISSING"), rec.get("behaviorClose", "MISSING")
            row = rows.setdefault(case_key(case)[0], {"n": 0, "ms": 0, "beh": {}, "clo": {}})
            row["n"] += 1
            row["ms"] += rec.get("duration") or 0
            row["beh"][beh] = row["beh"].get(beh, 0) + 1
            row["clo"][clo] = row["clo"].get(clo, 0) + 1
            if verdict(case, beh) and verdict(case, clo):
                total_pass += 1
                if "NON-STRICT" in (beh, clo):
                    nonstrict.append(case)
                elif "INFORMATIONAL" in (beh, clo):
                    info.append(case)
            else:
                total_fail += 1
                bad.append(case)
        if args.expect is not None and len(cases) != args.expect:
            short = True

        seen = [k for k in KNOWN if any(k in r["beh"] for r in rows.values())]
        seen += sorted({k for r in rows.values() for k in r["beh"]} - set(KNOWN))
        print("\nagent %s: %d cases" % (agent, len(cases)))
        head = "%-4s %-22s %5s %9s" % ("sec", "name", "cases", "seconds")
        print(head + "".join(" %13s" % k for k in seen) + "   close")
        for sec in sorted(rows):
            r = rows[sec]
            clo = ", ".join("%s %d" % (k, r["clo"][k]) for k in sorted(r["clo"], key=lambda k: (k != "OK", k)))
            print("%-4d %-22s %5d %9.1f" % (sec, SECTIONS.get(sec, ""), r["n"], r["ms"] / 1000.0)
                  + "".join(" %13d" % r["beh"].get(k, 0) for k in seen) + "   " + clo)
        print("%-27s %5d %9.1f" % ("all", len(cases), sum(r["ms"] for r in rows.values()) / 1000.0)
              + "".join(" %13d" % sum(r["beh"].get(k, 0) for r in rows.values()) for k in seen))
        print("verdicts: " + ", ".join("%d %s" % (sum(r["beh"].get(k, 0) for r in rows.values()), k) for k in seen))
        if nonstrict:
            print("non-strict (passed):  " + " ".join(nonstrict))
        if info:
            print("informational:        " + " ".join(info))
        if args.slowest > 0:
            slow = sorted(cases, key=lambda c: -(cases[c].get("duration") or 0))[:args.slowest]
            print("slowest:              " + "  ".join("%s %.1fs" % (c, (cases[c].get("duration") or 0) / 1000.0) for c in slow))
        for case in bad:
            rec = cases[case]
            print("FAIL %-9s behavior=%s close=%s | %s" % (case, rec.get("behavior"), rec.get("behaviorClose"), why(rec)))
        if args.expect is not None and len(cases) != args.expect:
            print("SHORT: %d cases in the report, %d were asked for" % (len(cases), args.expect))
            total_fail += abs(args.expect - len(cases))
        out[agent] = {"cases": len(cases), "failed": bad, "nonstrict": nonstrict, "informational": info,
                      "sections": {str(s): {"cases": rows[s]["n"], "seconds": rows[s]["ms"] / 1000.0,
                                            "behavior": rows[s]["beh"], "close": rows[s]["clo"]} for s in rows}}
    if args.json_out:
        with open(args.json_out, "w", encoding="utf-8") as f:
            json.dump(out, f, indent=1, sort_keys=True)
            f.write("\n")
    print("\n%d passed, %d failed" % (total_pass, total_fail))
    if short:
        return 2
    return 1 if total_fail else 0


if __name__ == "__main__":
    sys.exit(main())
