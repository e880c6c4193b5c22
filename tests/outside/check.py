"""The outside check of detection: rules of the pack, written again in Python over the vendors' JSON, must find on real
events exactly what Stakeout finds on them.

Usage: check.py STAKEOUT DATA_DIR, where DATA_DIR has folders `cloudtrail`, `kubernetes`, `falco` and the file
`cases/stratus.ndjson`. Compares, for rules with a window, every finding's entity, first and last boundary, and for the
others the events. Prints the number of findings of every rule, so that a comparison of nothing with nothing shows; ends
with 1 when anything differs or too few rules found something.
"""
import json
import shutil
import subprocess
import sys
import tempfile
from bisect import bisect_left
from collections import Counter
from pathlib import Path

import rules
import vendor

HERE = Path(__file__).resolve().parent
WITH_FINDINGS = {"window": 8, "filter": 14}


def events_of(data, folder):
    """Every source's events, and its folder of plain lines to import."""
    cases = folder / "cloudtrail"
    cases.mkdir()
    for path in vendor.files(data / "cloudtrail"):
        shutil.copy(path, cases)
    stratus = [json.loads(line)["event"] for line in (data / "cases/stratus.ndjson").open()]
    (cases / "stratus.ndjson").write_text("".join(json.dumps(e) + "\n" for e in stratus))
    folders = {"cloudtrail": cases, "kubernetes": data / "kubernetes", "falco": data / "falco"}
    return [e for source, at in folders.items() for e in vendor.load(at, source)], folders


def ours(events):
    """(rule, what identifies a finding) counted: (entity, first, last) or the event's uid."""
    found = Counter()
    for name, rule in rules.FILTERS.items():
        found.update((name, e.uid) for e in events if e.source == rule.source and rule.finds(e))
    for name, rule in rules.WINDOWS.items():
        rows = sorted((e for e in events if e.source in rule.sources and rule.looks_at(e)), key=lambda e: e.time)
        found.update((name, *run) for run in runs(rule, rows))
    return found


def runs(rule, rows):
    """At every boundary b, a multiple of `every`, the rule is asked about the rows with b - window <= time < b; a
    finding is a row of boundaries without a gap at which one entity holds."""
    window, every = rule.window * 1_000_000, rule.every * 1_000_000
    times = [row.time for row in rows]
    boundaries = {b for t in times for b in range((t // every + 1) * every, t + window + 1, every)}
    open_runs, done = {}, []
    for b in sorted(boundaries):
        held = set(rule.holds(rows[bisect_left(times, b - window) : bisect_left(times, b)]))
        for entity in held:
            first, last = open_runs.get(entity, (b, b - every))
            if last != b - every:
                done.append((entity, first, last))
                first = b
            open_runs[entity] = (first, b)
    return done + [(entity, first, last) for entity, (first, last) in open_runs.items()]


def theirs(stakeout, folders, folder):
    detections = folder / "detections"
    for name in [*rules.FILTERS, *rules.WINDOWS]:
        (path,) = [*HERE.glob(f"detections/*/{name}.sql"), *HERE.parents[1].glob(f"detections/*/{name}.sql")]
        (detections / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, detections / path.parent.name)
    # What rules ask.
    shutil.copytree(HERE.parents[1] / "detections" / "lookups", detections / "lookups")

    def run(*args):
        command = [stakeout, *map(str, args), "--data-dir", folder / "data", "--detections", detections]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800).stdout

    for source, at in folders.items():
        cluster = [] if source == "cloudtrail" else ["--cluster", "prod"]
        run("import", "--source", source, *cluster, *vendor.files(at))
    found = Counter()
    for line in run("alerts", "--findings", "--format", "ndjson", "--limit", 1_000_000).splitlines():
        finding = json.loads(line)["finding"]
        found[identity(finding)] += 1
    return found


def identity(finding):
    if "event" in finding["time"]:
        return finding["rule"], finding["evidence"]["events"][0]["event_uid"]
    run = finding["time"]["run"]
    return finding["rule"], tuple(value for _, value in finding["entity"]), run["first"], run["last"]


def main(stakeout, data):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        events, folders = events_of(Path(data), folder)
        expected, found = ours(events), theirs(Path(stakeout).resolve(), folders, folder)
    wrong = 0
    for kind, names in (("window", rules.WINDOWS), ("filter", rules.FILTERS)):
        busy = 0
        for name in names:
            mine = Counter({key: n for key, n in expected.items() if key[0] == name})
            other = Counter({key: n for key, n in found.items() if key[0] == name})
            busy += bool(mine)
            print(f"{kind}  {name}: {mine.total()} here, {other.total()} by stakeout")
            for what, left in (("only here", mine - other), ("only by stakeout", other - mine)):
                wrong += left.total()
                for key in sorted(left, key=str)[:10]:
                    print(f"    {what}: {key[1:]} x{left[key]}")
        print(f"{busy} of {len(names)} {kind} rules found something, {WITH_FINDINGS[kind]} must")
        wrong += busy < WITH_FINDINGS[kind]
    print(f"{len(events)} events, {expected.total()} findings: " + ("they DIFFER" if wrong else "the same"))
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: check.py STAKEOUT DATA_DIR")
    sys.exit(main(sys.argv[1], sys.argv[2]))
