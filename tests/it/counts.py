"""Counts over the raw NDJSON, made without any of Stakeout's code: the outside check of `search` and `sql`.

Usage: counts.py DATA_DIR. Prints one JSON object, name -> count. A line that repeats another one byte for byte
counts once, as it does in the store.
"""
import ipaddress
import json
import re
import sys
from pathlib import Path

root = Path(sys.argv[1])


def load(source):
    lines = set()
    for path in sorted((root / source).glob("*.ndjson")):
        lines.update(line for line in path.read_bytes().split(b"\n") if line.strip())
    return [json.loads(line) for line in lines]


def leaves(value, path=""):
    """Every (path, leaf) of a JSON value; array elements share the array's path."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for child in value:
            yield from leaves(child, path)
    elif value is not None:
        yield path, value


def words(leaf):
    if isinstance(leaf, bool):
        return ["true" if leaf else "false"]
    if isinstance(leaf, (int, float)):
        return [str(leaf)]
    return [w.lower() for w in re.findall(r"[^\W_]+", leaf)]


def has(event, phrase, path=None):
    """Are the words of `phrase` consecutive in one leaf (at `path`, if given)?"""
    wanted = words(phrase)
    for at, leaf in leaves(event):
        if path is None or at == path:
            have = words(leaf)
            if any(have[i : i + len(wanted)] == wanted for i in range(len(have) - len(wanted) + 1)):
                return True
    return False


def at(event, *path):
    for key in path:
        event = event.get(key) if isinstance(event, dict) else None
    return event


def text(event, *path):
    return at(event, *path) or ""


def usable(*times):
    return any(isinstance(t, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", t) for t in times)


# Every line is searched; what has no usable time is kept in `unparsed` and is no row of the source's table.
k8s_lines, ct, falco_lines = load("kubernetes"), load("cloudtrail"), load("falco")
everything = k8s_lines + ct + falco_lines
k8s = [
    e
    for e in k8s_lines
    if usable(
        e.get("stageTimestamp"), e.get("requestReceivedTimestamp"), e.get("timestamp"), at(e, "metadata", "creationTimestamp")
    )
]
falco = [
    e for e in falco_lines if usable(e.get("time")) or isinstance(at(e, "output_fields", "evt.time"), int)
]


def in_network(value, network):
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(network)
    except ValueError:
        return False


def long_running(e):
    return e.get("verb") in ("watch", "proxy") or text(e, "objectRef", "subresource") in (
        "attach", "exec", "proxy", "log", "portforward")


def is_call(e):
    return e.get("stage") == "ResponseStarted" if long_running(e) else e.get("stage") in ("ResponseComplete", "Panic")


def n(events, condition):
    return sum(1 for e in events if condition(e))


def code(e):
    value = at(e, "responseStatus", "code")
    return value if isinstance(value, int) else -1


counts = {
    "kubernetes rows": len(k8s),
    "cloudtrail rows": len(ct),
    "falco rows": len(falco),
    "unparsed rows": len(everything) - len(k8s) - len(ct) - len(falco),
    "search eventName": n(ct, lambda e: has(e, "GetUser", "eventName")),
    "search case-insensitive": n(ct, lambda e: has(e, "DECRYPT", "eventName")),
    "search nested path": n(ct, lambda e: has(e, "AssumedRole", "userIdentity.type")),
    "search phrase in a field": n(ct, lambda e: has(e, "rate exceeded", "errorMessage")),
    "search and not": n(ct, lambda e: has(e, "iam.amazonaws.com", "eventSource") and not has(e, "GetUser", "eventName")),
    "search or": n(ct, lambda e: has(e, "GetSecretValue", "eventName") or has(e, "CreateAccessKey", "eventName")),
    "search free word": n(everything, lambda e: has(e, "stratus")),
    "search free phrase": n(everything, lambda e: has(e, "is not authorized to perform")),
    "search prefix wildcard": n(ct, lambda e: any(w.startswith("describe") for w in words(text(e, "eventName")))),
    "search inner wildcard": n(ct, lambda e: any(re.fullmatch(".*secret.*", w) for w in words(text(e, "eventName")))),
    "search one character wildcard": n(ct, lambda e: any(re.fullmatch("getrol.", w) for w in words(text(e, "eventName")))),
    "search number": n(k8s_lines, lambda e: code(e) == 403),
    "search number range": n(k8s, lambda e: 400 <= code(e) <= 499),
    "search comparison": n(k8s, lambda e: code(e) >= 500),
    "search exists": n(ct, lambda e: e.get("errorCode") is not None),
    "search column": n(k8s_lines, lambda e: has(e, "watch", "verb")),
    "search set": n(k8s_lines, lambda e: e.get("verb") in ("delete", "patch", "deletecollection")),
    "search time range": n(ct, lambda e: "2023-07-10T12:00:00Z" <= e["eventTime"] < "2023-07-10T13:00:00Z"),
    "search falco priority": n(falco, lambda e: has(e, "Warning", "priority")),
    "search falco field": n(falco_lines, lambda e: has(e, "cat", "output_fields.proc.cmdline")),
    "search network": n(k8s_lines, lambda e: any(in_network(a, "192.168.0.0/16") for a in e.get("sourceIPs") or [])),
    "sql calls": n(k8s, is_call),
    "sql denied": n(ct, lambda e: "AccessDenied" in text(e, "errorCode") or "Unauthorized" in text(e, "errorCode")),
    "sql distinct users": len({at(e, "user", "username") for e in k8s if at(e, "user", "username") is not None}),
    "sql secrets read": n(k8s, lambda e: e.get("verb") in ("get", "list") and text(e, "objectRef", "resource") == "secrets"),
    "sql write calls": n(ct, lambda e: e.get("readOnly") is False),
    "sql json path": n(ct, lambda e: isinstance(at(e, "requestParameters", "userName"), str)),
    "sql events by source": len(k8s) + len(falco),
    "sql service accounts": n(k8s, lambda e: text(e, "user", "username").startswith("system:serviceaccount:")),
    "sql kubernetes failures": n(k8s, lambda e: code(e) >= 400),
    "sql falco critical": n(falco, lambda e: e.get("priority") == "Critical"),
}
print(json.dumps(counts))
