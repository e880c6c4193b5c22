"""Events as their vendors write them, read without any of Stakeout's code.

What Stakeout calls a column is computed here from the vendor's documentation: who called, whether it worked, which
network an address is in. A line that repeats another one byte for byte is one event; what has no usable time is none.
"""
import hashlib
import ipaddress
import json
import re
from datetime import datetime, timezone
from pathlib import Path

TIMES = {
    "kubernetes": ["stageTimestamp", "requestReceivedTimestamp", "timestamp", ("metadata", "creationTimestamp")],
    "cloudtrail": ["eventTime"],
    "falco": ["time"],
}


class Event:
    """One event: `raw` as parsed, its source, its time in microseconds, the id by which findings name it."""

    def __init__(self, source, line):
        self.source, self.raw = source, json.loads(line)
        self.time = next((t for t in map(micros, (self.at(path) for path in TIMES[source])) if t is not None), None)
        self.uid = {
            "kubernetes": lambda: f"{self.at('auditID')}/{self.at('stage')}",
            "cloudtrail": lambda: self.at("eventID"),
            "falco": lambda: self.at("uuid"),
        }[source]() or hashlib.sha256(line).hexdigest()[:32]

    def at(self, *path):
        """The value at a path, None where a step is missing. A path may be one tuple."""
        value = self.raw
        for key in path[0] if isinstance(path[0], tuple) else path:
            if isinstance(value, list):
                value = value[key] if isinstance(key, int) and key < len(value) else None
            else:
                value = value.get(key) if isinstance(value, dict) else None
        return value

    def text(self, *path):
        """As `at`, but text: empty where missing, JSON where it is no text."""
        value = self.at(*path)
        return value if isinstance(value, str) else "" if value is None else json.dumps(value, separators=(",", ":"))

    def asks(self, *path):
        return self.at("requestParameters", *path)

    def call(self, service, *names):
        return self.at("eventSource") == f"{service}.amazonaws.com" and self.at("eventName") in names


def load(folder, source):
    lines = dict.fromkeys(
        line for path in files(folder) for line in path.read_bytes().split(b"\n") if line.strip()
    )
    return [event for event in (Event(source, line) for line in lines) if event.time is not None]


def files(folder):
    return sorted(Path(folder).glob("*.ndjson"))


def micros(text):
    match = isinstance(text, str) and re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", text)
    if not match:
        return None
    seconds, fraction, zone = match.groups()
    moment = datetime.fromisoformat(seconds + zone.replace("Z", "+00:00")).astimezone(timezone.utc)
    return int(moment.timestamp()) * 1_000_000 + int((fraction or "0").ljust(6, "0")[:6])


def one_or_list(value):
    return value if isinstance(value, list) else [] if value is None else [value]


# CloudTrail.


def worked(e):
    outcome = [e.at("errorCode"), e.at("errorMessage"), e.at("responseElements", "ConsoleLogin"),
               e.at("responseElements", "SwitchRole")]
    return next((o for o in outcome if o is not None), "Success") in ("", "Success")


def account(e):
    return e.at("userIdentity", "accountId") or e.at("recipientAccountId")


def own(e):
    return e.at("recipientAccountId") or account(e)


def principal(e):
    who = e.at("userIdentity") or {}
    issuer = e.at("userIdentity", "sessionContext", "sessionIssuer", "arn")
    first = {"AssumedRole": issuer, "WebIdentityUser": who.get("userName"), "SAMLUser": who.get("userName"),
             "Root": who.get("accountId")}.get(who.get("type"))
    return first or who.get("arn") or who.get("userName") or who.get("invokedBy") or who.get("accountId")


def user_name(e):
    who = e.at("userIdentity") or {}
    return (who.get("userName") or e.at("userIdentity", "sessionContext", "sessionIssuer", "userName")
            or who.get("invokedBy"))


def by_service(e):
    def is_service(text):
        return isinstance(text, str) and (text.endswith(".amazonaws.com") or text == "AWS Internal")

    return (is_service(e.at("userIdentity", "invokedBy")) or is_service(e.at("sourceIPAddress"))
            or e.at("userIdentity", "type") == "AWSService")


def service_itself(e):
    """Not on somebody's behalf: the service, or a role that only it can assume."""
    return (e.at("userIdentity", "type") == "AWSService"
            or ":role/aws-service-role/" in e.text("userIdentity", "sessionContext", "sessionIssuer", "arn"))


def base_name(e):
    return re.sub(r"(?<=.)(\d{4}_\d\d_\d\d|\d{8}(v\d+)?)$", "", e.text("eventName"))


def from_console(e):
    return e.text("sessionCredentialFromConsole") == "true"


def address(e):
    """IPv4 addresses without leading zeros; None for what is no address."""
    text = e.text("sourceIPAddress")
    if re.fullmatch(r"\d+(\.\d+){3}", text):
        text = ".".join(str(int(part)) for part in text.split("."))
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def network(ip):
    return ipaddress.ip_network((ip, 24 if ip.version == 4 else 48), strict=False)


def statements(document):
    """Those of a policy, which comes as text or as an object and has one or a list of them."""
    try:
        document = json.loads(document) if isinstance(document, str) else document
    except ValueError:
        return []
    return [s for s in one_or_list((document or {}).get("Statement")) if isinstance(s, dict)]


def allowing(document):
    return [s for s in statements(document) if s.get("Effect") == "Allow"]


def principals(statement):
    """(kind, name) of everybody that a statement names."""
    named = statement.get("Principal")
    if isinstance(named, str):
        return [("AWS", named)]
    return [(kind, name) for kind, names in (named or {}).items() for name in one_or_list(names)]


def is_outsider(kind, name, account_id):
    if kind == "CanonicalUser":
        return True
    match = re.fullmatch(r"(?:arn:aws[^:]*:(?:iam|sts)::)?(\d{12})(?::.*)?", name)
    return kind == "AWS" and match is not None and match[1] != account_id


def conditions(statement):
    return [key for test in (statement.get("Condition") or {}).values() for key in test]


# Kubernetes.


def is_call(e):
    """One row of a request: the start of the answer for those that last, else the end."""
    lasts = e.at("verb") in ("watch", "proxy") or e.at("objectRef", "subresource") in (
        "attach", "exec", "proxy", "log", "portforward")
    return e.at("stage") == "ResponseStarted" if lasts else e.at("stage") in ("ResponseComplete", "Panic")


def code(e):
    return e.at("responseStatus", "code")
