//! Falco alerts as its JSON output writes them: the fields of the rule, and `output` made of them by the rule's template.
//! Rules: https://falco.org/docs/reference/rules/default-rules/

use event::{Micros, Source};
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::{Map, Value, json};

use super::cast::{Node, Pod};
use super::scene::Draft;
use crate::kubernetes::micro_time;

/// A rule as it tells what it saw.
struct Rule {
    name: &'static str,
    priority: &'static str,
    sentence: &'static str,
    /// What comes before the fields that all rules have, each with the name that it has in the text.
    fields: &'static [(&'static str, &'static str)],
    tags: &'static [&'static str],
}

const CONNECTION: &[(&str, &str)] = &[
    ("connection", "fd.name"),
    ("lport", "fd.lport"),
    ("rport", "fd.rport"),
    ("fd_type", "fd.type"),
    ("fd_proto", "fd.l4proto"),
];
const FILE: &[(&str, &str)] = &[("file", "fd.name")];
const SPAWNED: &[(&str, &str)] =
    &[("parent_exe", "proc.pexe"), ("pcmdline", "proc.pcmdline"), ("gparent", "proc.aname[2]")];

const RULES: &[Rule] = &[
    Rule {
        name: "Redirect STDOUT/STDIN to Network Connection in Container",
        priority: "Notice",
        sentence: "Redirect stdout/stdin to network connection",
        fields: &[
            ("gparent", "proc.aname[2]"),
            ("fd.sip", "fd.sip"),
            ("connection", "fd.name"),
            ("lport", "fd.lport"),
            ("rport", "fd.rport"),
        ],
        tags: &["container", "maturity_stable", "mitre_execution", "network", "process", "T1059"],
    },
    Rule {
        name: "Contact EC2 Instance Metadata Service From Container",
        priority: "Notice",
        sentence: "Outbound connection to EC2 instance metadata service",
        fields: CONNECTION,
        tags: &["aws", "container", "maturity_incubating", "mitre_credential_access", "network", "T1552.005"],
    },
    Rule {
        name: "Launch Ingress Remote File Copy Tools in Container",
        priority: "Notice",
        sentence: "Ingress remote file copy tool launched in container",
        fields: &[],
        tags: &["container", "maturity_incubating", "mitre_command_and_control", "network", "process", "TA0011"],
    },
    Rule {
        name: "Read sensitive file untrusted",
        priority: "Warning",
        sentence: "Sensitive file opened for reading by non-trusted program",
        fields: &[("file", "fd.name"), ("gparent", "proc.aname[2]"), ("ggparent", "proc.aname[3]")],
        tags: &["container", "filesystem", "host", "maturity_stable", "mitre_credential_access", "T1555"],
    },
    Rule {
        name: "Terminal shell in container",
        priority: "Notice",
        sentence: "A shell was spawned in a container with an attached terminal",
        fields: &[],
        tags: &["container", "maturity_stable", "mitre_execution", "shell", "T1059"],
    },
    Rule {
        name: "Run shell untrusted",
        priority: "Notice",
        sentence: "Shell spawned by untrusted binary",
        fields: SPAWNED,
        tags: &["container", "host", "maturity_stable", "mitre_execution", "process", "shell", "T1059.004"],
    },
    Rule {
        name: "Mount Launched in Privileged Container",
        priority: "Warning",
        sentence: "Mount was executed inside a privileged container",
        fields: &[],
        tags: &["cis", "container", "filesystem", "maturity_incubating", "mitre_privilege_escalation", "T1611"],
    },
    Rule {
        name: "Linux Kernel Module Injection Detected",
        priority: "Warning",
        sentence: "Linux Kernel Module injection from container",
        fields: &[("parent_exepath", "proc.pexepath"), ("gparent", "proc.aname[2]"), ("module", "proc.args")],
        tags: &["container", "host", "maturity_stable", "mitre_persistence", "process", "TA0003"],
    },
    Rule {
        name: "Detect release_agent File Container Escapes",
        priority: "Critical",
        sentence: "Detect an attempt to exploit a container escape using release_agent file",
        fields: &[("file", "fd.name"), ("cap_effective", "thread.cap_effective")],
        tags: &["container", "maturity_stable", "mitre_privilege_escalation", "process", "T1611"],
    },
    Rule {
        name: "Write below monitored dir",
        priority: "Error",
        sentence: "File below a monitored directory opened for writing",
        fields: FILE,
        tags: &["container", "filesystem", "host", "maturity_sandbox", "mitre_persistence", "T1543"],
    },
    Rule {
        name: "Unexpected outbound connection destination",
        priority: "Notice",
        sentence: "Disallowed outbound connection destination",
        fields: CONNECTION,
        tags: &["container", "host", "maturity_sandbox", "mitre_command_and_control", "network", "TA0011"],
    },
    Rule {
        name: "Launch Suspicious Network Tool in Container",
        priority: "Notice",
        sentence: "Network tool launched in container",
        fields: &[],
        tags: &["container", "maturity_incubating", "mitre_execution", "network", "process", "T1059"],
    },
    Rule {
        name: "System user interactive",
        priority: "Informational",
        sentence: "System user ran an interactive command",
        fields: &[],
        tags: &["NIST_800-53_AC-2", "T1059", "container", "host", "maturity_stable", "mitre_execution", "users"],
    },
    Rule {
        name: "Delete or rename shell history",
        priority: "Warning",
        sentence: "Shell history deleted or renamed",
        fields: FILE,
        tags: &["container", "filesystem", "host", "maturity_incubating", "mitre_defense_evasion", "process", "T1070"],
    },
    Rule {
        name: "Clear Log Activities",
        priority: "Warning",
        sentence: "Log files were tampered",
        fields: FILE,
        tags: &[
            "NIST_800-53_AU-10",
            "T1070",
            "container",
            "filesystem",
            "host",
            "maturity_stable",
            "mitre_defense_evasion",
        ],
    },
    Rule {
        name: "Known Cryptominer Process Executed",
        priority: "Critical",
        sentence: "Cryptominer process executed",
        fields: &[],
        tags: &["container", "host", "maturity_sandbox", "mitre_impact", "process", "T1496"],
    },
    Rule {
        name: "Detect crypto miners using the Stratum protocol",
        priority: "Critical",
        sentence: "Possible miner running",
        fields: &[],
        tags: &["container", "host", "maturity_sandbox", "mitre_impact", "process", "T1496"],
    },
    Rule {
        name: "Detect outbound connections to common miner pool ports",
        priority: "Critical",
        sentence: "Outbound connection to IP/Port flagged by https://cryptoioc.ch",
        fields: &[("ip", "fd.rip"), ("connection", "fd.name"), ("lport", "fd.lport"), ("rport", "fd.rport")],
        tags: &["container", "host", "maturity_sandbox", "mitre_impact", "network", "T1496"],
    },
];

/// What all rules end with.
const PROCESS: [(&str, &str); 9] = [
    ("evt_type", "evt.type"),
    ("user", "user.name"),
    ("user_uid", "user.uid"),
    ("user_loginuid", "user.loginuid"),
    ("process", "proc.name"),
    ("proc_exepath", "proc.exepath"),
    ("parent", "proc.pname"),
    ("command", "proc.cmdline"),
    ("terminal", "proc.tty"),
];

const CONTAINER: [(&str, &str); 6] = [
    ("container_id", "container.id"),
    ("container_name", "container.name"),
    ("container_image_repository", "container.image.repository"),
    ("container_image_tag", "container.image.tag"),
    ("k8s_pod_name", "k8s.pod.name"),
    ("k8s_ns_name", "k8s.ns.name"),
];

pub(super) struct Alert {
    rule: &'static Rule,
    node: String,
    fields: Map<String, Value>,
}

impl Alert {
    /// A process in a pod, started by its first process, without a terminal.
    pub fn new(rule: &str, pod: &Pod, command: &str) -> Alert {
        let mut alert = Alert::bare(rule, &pod.node, command);
        alert.set("container.id", json!(pod.container_id));
        alert.set("container.name", json!(pod.container));
        alert.set("container.image.repository", json!(pod.image));
        alert.set("container.image.tag", json!(pod.tag));
        alert.set("k8s.pod.name", json!(pod.name));
        alert.set("k8s.ns.name", json!(pod.namespace));
        alert
    }

    /// A process of the node itself.
    pub fn on(rule: &str, node: &Node, command: &str) -> Alert {
        let mut alert = Alert::bare(rule, node, command);
        alert.set("container.id", json!("host"));
        alert.set("container.name", json!("host"));
        for field in ["container.image.repository", "container.image.tag", "k8s.pod.name", "k8s.ns.name"] {
            alert.set(field, Value::Null);
        }
        alert
    }

    fn bare(rule: &str, node: &Node, command: &str) -> Alert {
        let rule = RULES.iter().find(|known| known.name == rule).expect("stories name rules that are known here");
        let mut alert = Alert { rule, node: node.name.clone(), fields: Map::new() };
        let program = command.split(' ').next().unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or_default();
        let path = if program.starts_with('/') { program.to_owned() } else { format!("/usr/bin/{name}") };
        // The kernel keeps fifteen characters.
        alert.set("proc.name", json!(name.chars().take(15).collect::<String>()));
        alert.set("proc.exepath", json!(path));
        alert.set("proc.cmdline", json!(command));
        alert.set("proc.pname", json!("containerd-shim"));
        alert.set("proc.tty", json!(0));
        alert.set("evt.type", json!("execve"));
        alert.set("user.name", json!("root"));
        alert.set("user.uid", json!(0));
        alert.set("user.loginuid", json!(-1));
        alert
    }

    fn set(&mut self, field: &str, value: Value) {
        self.fields.insert(field.to_owned(), value);
    }

    pub fn parent(mut self, parent: &str, its_parent: &str) -> Alert {
        self.set("proc.pname", json!(parent));
        self.set("proc.pexe", json!(parent));
        self.set("proc.pexepath", json!(format!("/usr/bin/{parent}")));
        self.set("proc.pcmdline", json!(parent));
        self.set("proc.aname[2]", json!(its_parent));
        self
    }

    pub fn terminal(mut self) -> Alert {
        self.set("proc.tty", json!(34_816));
        self
    }

    pub fn by(mut self, user: &str, uid: u32, login: i64) -> Alert {
        self.set("user.name", json!(user));
        self.set("user.uid", json!(uid));
        self.set("user.loginuid", json!(login));
        self
    }

    pub fn file(mut self, path: &str) -> Alert {
        self.set("fd.name", json!(path));
        self.set("evt.type", json!("openat"));
        self
    }

    pub fn connection(mut self, from: &str, port: u16, to: &str, to_port: u16) -> Alert {
        self.set("fd.name", json!(format!("{from}:{port}->{to}:{to_port}")));
        self.set("fd.sip", json!(to));
        self.set("fd.rip", json!(to));
        self.set("fd.lport", json!(port));
        self.set("fd.rport", json!(to_port));
        self.set("fd.type", json!("ipv4"));
        self.set("fd.l4proto", json!("tcp"));
        self.set("evt.type", json!("connect"));
        self
    }

    pub fn field(mut self, field: &str, value: Value) -> Alert {
        self.set(field, value);
        self
    }

    /// A rule outputs its own fields, whether or not they have a value.
    pub fn draft(mut self, rng: &mut SmallRng) -> Draft {
        let shown: Vec<(&str, &str)> = self.rule.fields.iter().chain(&PROCESS).chain(&CONTAINER).copied().collect();
        self.fields.retain(|field, _| shown.iter().any(|(_, known)| known == field));
        for (_, field) in &shown {
            self.fields.entry(*field).or_insert(Value::Null);
        }
        let text = |value: &Value| match value {
            Value::Null => "<NA>".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let words: Vec<String> =
            shown.iter().map(|(name, field)| format!("{name}={}", text(&self.fields[*field]))).collect();
        let Rule { name, priority, sentence, tags, .. } = self.rule;
        Draft::new(
            Source::Falco,
            json!({
                "hostname": self.node, "output": format!("{priority} {sentence} | {}", words.join(" ")), "output_fields": self.fields,
                "priority": priority, "rule": name, "source": "syscall", "tags": tags,
                // taken out again when the time is known
                "time": rng.random_range(0..1000),
            }),
        )
    }
}

pub(super) fn stamp(body: &mut Value, at: Micros) -> Micros {
    let below = body["time"].as_i64().unwrap_or_default();
    let time = micro_time(at).replace('Z', &format!("{below:03}Z"));
    let clock = time.get(11..29).unwrap_or_default();
    body["output"] = json!(format!("{clock}: {}", body["output"].as_str().unwrap_or_default()));
    body["output_fields"]["evt.time"] = json!(at * 1000 + below);
    body["time"] = json!(time);
    at
}
