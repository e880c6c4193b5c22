//! The process that an alert is about: command lines from a grammar (program, flags, paths, ports, pids), ancestors,
//! files, connections.

use rand::Rng;
use rand::rngs::SmallRng;

use super::Field;
use super::programs::{HOST_PARENTS, PARENTS, PROGRAMS, named, typical};
use super::rules::Rule;
use crate::random::{chance, hex, mix, pick, put, zipf_of};
use crate::world::{Pod, team};

pub struct Process {
    name: String,
    path: String,
    command: String,
    parent: &'static str,
    user: &'static str,
    uid: i64,
    login_uid: i64,
    terminal: i64,
    ancestors: Vec<String>,
    pub evt_type: &'static str,
    pub flags: &'static str,
}

const WORDS: [&str; 24] = [
    "main", "worker", "ingest", "report", "cleanup", "sync", "migrate", "health", "cache", "session", "export",
    "billing", "index", "notify", "archive", "reload", "audit", "prepare", "verify", "publish", "rotate", "render",
    "replay", "warmup",
];
const USERS: [(&str, i64); 6] =
    [("root", 0), ("root", 0), ("app", 1000), ("nobody", 65_534), ("www-data", 33), ("postgres", 999)];

impl Process {
    /// A program by name with a command line of its own.
    pub fn plain(rng: &mut SmallRng, name: &str, command: String) -> Process {
        Process {
            name: name.to_owned(),
            path: format!("/usr/bin/{name}"),
            command,
            parent: "containerd-shim",
            user: "root",
            uid: 0,
            login_uid: -1,
            terminal: 0,
            ancestors: ancestors(rng),
            evt_type: "execve",
            flags: "EXE_WRITABLE",
        }
    }

    /// What fires the rule in the pod, or beside it on the host: each workload has a few programs and commands of its
    /// own.
    pub fn draw(rng: &mut SmallRng, rule: &Rule, pod: &Pod, outside: bool) -> Process {
        let habit = mix(0xE1 ^ pod.workload_number, zipf_of(rng, 24, 1.0));
        let (name, directory, shape) = match typical(rule.name) {
            [] => PROGRAMS[(habit % 24) as usize],
            few => *named(few[(habit % few.len() as u64) as usize]),
        };
        let (user, uid) = USERS[(pod.workload_number % 6) as usize];
        let probe = rule.name == "Run shell untrusted";
        let shell = !probe && (rule.name.contains("shell") || rule.name.contains("nteractive"));
        Process {
            name: name.to_owned(),
            path: format!("{directory}/{name}"),
            command: command(rng, shape, pod, habit),
            parent: match (probe || shell, outside) {
                _ if rule.name.starts_with("DB program") => "postgres",
                (true, false) => "runc",
                (_, true) => pick(rng, &HOST_PARENTS),
                (false, false) => pick(rng, &PARENTS),
            },
            user,
            uid,
            login_uid: if shell { 1_000 + (habit % 40) as i64 } else { -1 },
            terminal: if shell { 34_816 + rng.random_range(0..9) } else { 0 },
            ancestors: ancestors(rng),
            evt_type: match rule {
                rule if rule.has("net") => pick(rng, &["connect", "connect", "sendto", "dup2"]),
                rule if rule.has("file") => pick(rng, &["openat", "openat", "open", "renameat2"]),
                rule if rule.has("path") => pick(rng, &["symlinkat", "mkdirat", "fchmodat", "unlinkat"]),
                rule if rule.has("uidarg") => "setuid",
                _ => "execve",
            },
            flags: pick(rng, &["EXE_WRITABLE", "EXE_WRITABLE|EXE_UPPER_LAYER", "EXE_LOWER_LAYER", "EXE_FROM_MEMFD"]),
        }
    }

    /// The fields that nearly every rule names.
    pub fn base(&self, fields: &mut Vec<Field>) {
        fields.push(Field::text("user", "user.name", self.user.to_owned()));
        fields.push(Field::number("user_uid", "user.uid", self.uid));
        fields.push(Field::number("user_loginuid", "user.loginuid", self.login_uid));
        fields.push(Field::text("process", "proc.name", self.name.clone()));
        fields.push(Field::text("proc_exepath", "proc.exepath", self.path.clone()));
        fields.push(Field::text("parent", "proc.pname", self.parent.to_owned()));
        fields.push(Field::text("command", "proc.cmdline", self.command.clone()));
        fields.push(Field::number("terminal", "proc.tty", self.terminal));
    }

    /// The fields that are the rule's own.
    pub fn special(&self, rng: &mut SmallRng, rule: &Rule, pod: &Pod, fields: &mut Vec<Field>) {
        if rule.has("file") {
            fields.push(Field::text("file", "fd.name", file(rng, rule, pod)));
        }
        if rule.has("path") {
            fields.push(Field::text("target", "evt.arg.path", file(rng, rule, pod)));
        }
        if rule.has("net") {
            connection(rng, rule, pod, fields);
        }
        if rule.has("pexe") {
            fields.push(Field::text("parent_exe", "proc.pexe", format!("/usr/bin/{}", self.parent)));
            fields.push(Field::text("parent_exepath", "proc.pexepath", format!("/usr/bin/{}", self.parent)));
        }
        if rule.has("pcmd") {
            let shape = PROGRAMS[(mix(0xE2, pod.workload_number) % 24) as usize].2;
            fields.push(Field::text("pcmdline", "proc.pcmdline", command(rng, shape, pod, pod.workload_number)));
        }
        if rule.has("cwd") {
            fields.push(Field::text(
                "cwd",
                "proc.cwd",
                format!("/srv/{}/{}/", pod.container, hex(0xE3, pod.workload_number, 8)),
            ));
        }
        const ANCESTORS: [(&str, &str); 6] = [
            ("gparent", "proc.aname[2]"),
            ("ggparent", "proc.aname[3]"),
            ("gggparent", "proc.aname[4]"),
            ("aname_5", "proc.aname[5]"),
            ("aname_6", "proc.aname[6]"),
            ("aname_7", "proc.aname[7]"),
        ];
        let named =
            [("anc2", 1), ("anc4", 3), ("anc7", 6)].iter().find(|(word, _)| rule.has(word)).map_or(0, |row| row.1);
        for ((label, name), ancestor) in ANCESTORS.iter().zip(&self.ancestors).take(named) {
            fields.push(Field::text(label, name, ancestor.clone()));
        }
        if rule.has("args") {
            fields.push(Field::text(
                "args",
                "evt.args",
                format!("domain=17(AF_PACKET) type={} proto={}", rng.random_range(2..4), rng.random_range(0..800)),
            ));
        }
        if rule.has("caps") {
            fields.push(Field::text(
                "cap_permitted",
                "thread.cap_permitted",
                "CAP_CHOWN CAP_DAC_OVERRIDE CAP_NET_ADMIN CAP_SYS_PTRACE".to_owned(),
            ));
        }
        if rule.has("mounts") {
            fields.push(Field::text(
                "mounts",
                "container.mounts",
                format!("/var/lib/{0}:/host/{0}::true:rslave", pod.container),
            ));
        }
        if rule.has("uidarg") {
            fields.push(Field::text("uid", "evt.arg.uid", pick(rng, &["root", "app", "nobody"]).to_string()));
        }
        if rule.has("modearg") {
            fields.push(Field::text("mode", "evt.arg.mode", "S_ISUID|S_IXUSR|S_IRUSR".to_owned()));
        }
    }
}

fn ancestors(rng: &mut SmallRng) -> Vec<String> {
    const NAMES: [&str; 6] = ["containerd-shim", "systemd", "tini", "bash", "supervisord", "runc"];
    (0..6).map(|_| pick(rng, &NAMES).to_string()).collect()
}

/// Fills a shape; what is a habit of the workload stays the same, numbers do not.
fn command(rng: &mut SmallRng, shape: &str, pod: &Pod, habit: u64) -> String {
    let mut text = String::with_capacity(shape.len() + 40);
    let mut rest = shape;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        match name {
            "part" => text.push_str(pod.container),
            "word" => text.push_str(WORDS[(habit / 32 % 24) as usize]),
            "team" => text.push_str(team(pod.workload_number)),
            "version" => put!(&mut text, "{}.{}.{}", habit % 5, habit / 8 % 30, habit / 256 % 12),
            "port" => put!(&mut text, "{}", 1_024 + habit / 512 % 60_000),
            "small" => put!(&mut text, "{}", rng.random_range(1..250)),
            "byte" => put!(&mut text, "{}", rng.random_range(1..255)),
            "number" => put!(&mut text, "{}", rng.random_range(100_000..9_999_999)),
            _ => crate::random::put_hex(&mut text, rng, 10),
        }
        rest = after;
    }
    text.push_str(rest);
    if habit / 32 % 12 == 5 && PROGRAMS.iter().any(|program| program.2 == shape) {
        // A program of the JVM is started with all that it may need.
        text.push_str(" -cp ");
        for n in 0..17 {
            let library = mix(0xE4, habit ^ n);
            let word = WORDS[(library % 24) as usize];
            put!(&mut text, "/srv/{}/lib/{word}-{}.{}.jar:", pod.container, library / 32 % 5, library / 256 % 40);
        }
    }
    text
}

fn file(rng: &mut SmallRng, rule: &Rule, pod: &Pod) -> String {
    let part = pod.container;
    let word = pick(rng, &WORDS);
    match rule.name {
        "Write Binary Under UsrLocalBin" => format!("/usr/local/bin/{part}-{word}"),
        "Clear Log Activities" => format!("/var/log/{part}/{word}.{}.log", rng.random_range(0..30)),
        "Execution from /dev/shm" => format!("/dev/shm/{part}.{word}"),
        "Read sensitive file untrusted" | "Read sensitive file trusted after startup" => {
            pick(rng, &["/etc/shadow", "/etc/sudoers", "/etc/pam.conf", "/etc/security/pwquality.conf"]).to_string()
        }
        "Write below etc" | "Schedule Cron Jobs" | "Update Package Repository" => {
            format!("/etc/{part}.d/{word}-{}", rng.random_range(0..90))
        }
        "Read environment variable from /proc files" => format!("/proc/{}/environ", rng.random_range(2..90_000)),
        "Adding ssh keys to authorized_keys" => {
            format!("/home/{}/.ssh/authorized_keys", team(rng.random::<u32>().into()))
        }
        "Delete or rename shell history" => "/root/.bash_history".to_owned(),
        _ => format!("/opt/{part}/{word}/{}.tmp", rng.random_range(0..100_000)),
    }
}

fn connection(rng: &mut SmallRng, rule: &Rule, pod: &Pod, fields: &mut Vec<Field>) {
    let (local, remote_port) = (rng.random_range(32_768..60_999), if chance(rng, 70.0) { 443 } else { 6443 });
    let remote = match rule.name {
        "Contact K8S API Server From Container" => "172.20.0.1".to_owned(),
        "Contact cloud metadata service from container" => "169.254.169.254".to_owned(),
        _ => format!("10.{}.{}.{}", rng.random_range(64..96), rng.random_range(0..255), rng.random_range(1..255)),
    };
    fields.push(Field::text("connection", "fd.name", format!("{}:{local}->{remote}:{remote_port}", pod.ip)));
    fields.push(Field::number("lport", "fd.lport", local));
    fields.push(Field::number("rport", "fd.rport", remote_port));
    fields.push(Field::text("fd_type", "fd.type", "ipv4".to_owned()));
    fields.push(Field::text("fd_proto", "fd.l4proto", "tcp".to_owned()));
}
