//! What runs in containers and on hosts: command lines as shapes, and which programs everyday alerts of a rule are
//! about. Logs are emptied by what rotates them, package lists are changed by package managers on hosts, shells without
//! a terminal are those of probes; of other rules a workload's own few programs are the cause.

/// Program, its directory, the shape of its command line.
pub type Program = (&'static str, &'static str, &'static str);

/// What workloads run; `{…}` are filled in.
pub const PROGRAMS: [Program; 24] = [
    ("python3", "/usr/bin", "python3 -m {part}.{word} --config /etc/{part}/{word}.yaml --port {port}"),
    (
        "java",
        "/opt/java/bin",
        "java -Xmx{small}m -XX:+UseG1GC -Dapp.home=/srv/{part} -Dhttp.port={port} -jar /srv/{part}/{word}-{version}.jar",
    ),
    ("node", "/usr/local/bin", "node --max-old-space-size={small} /srv/{part}/dist/{word}.js --listen {port}"),
    ("curl", "/usr/bin", "curl -sS --max-time {small} -o /tmp/{hex} http://{part}.{team}.svc:{port}/{word}/{number}"),
    ("sh", "/bin", "sh -c /srv/{part}/bin/{word}.sh --since {number}"),
    ("bash", "/usr/bin", "bash /srv/{part}/hooks/{word}-{small}.sh"),
    ("tar", "/usr/bin", "tar -xzf /tmp/{word}-{hex}.tgz -C /srv/{part}/releases/{number}"),
    ("nginx", "/usr/sbin", "nginx -c /etc/nginx/{part}.conf -g daemon off;"),
    ("postgres", "/usr/lib/postgresql/16/bin", "postgres: {part} {word} 10.{small}.{byte}.{byte}({port}) idle"),
    ("redis-server", "/usr/local/bin", "redis-server *:{port}"),
    ("cp", "/usr/bin", "cp -a /var/lib/{part}/{word}/{hex} /data/{part}/{word}"),
    ("find", "/usr/bin", "find /var/lib/{part} -name *.{word} -mmin -{small}"),
    ("grep", "/usr/bin", "grep -r {word} /srv/{part}/conf.d"),
    ("logrotate", "/usr/sbin", "logrotate -s /var/lib/logrotate/{part}.status /etc/logrotate.d/{word}"),
    ("apt-get", "/usr/bin", "apt-get install -y --no-install-recommends {word}={version}-{small}"),
    ("pip", "/usr/local/bin", "pip install --no-cache-dir {word}=={version}"),
    ("git", "/usr/bin", "git -C /srv/{part} fetch --depth {small} origin {hex}"),
    ("tcpdump", "/usr/sbin", "tcpdump -i eth0 -c {small} port {port}"),
    ("ip", "/sbin", "ip route get 10.{small}.{byte}.{byte}"),
    ("cat", "/usr/bin", "cat /srv/{part}/run/{word}.pid"),
    ("envoy", "/usr/local/bin", "envoy -c /etc/envoy/{part}.yaml --base-id {small} --service-node {part}-{hex}"),
    ("fluent-bit", "/fluent-bit/bin", "fluent-bit -c /fluent-bit/etc/{word}.conf -f {small}"),
    ("systemctl", "/usr/bin", "systemctl reload {part}-{word}.service"),
    ("rsync", "/usr/bin", "rsync -a --delete /data/{part}/{word}/ 10.{small}.{byte}.{byte}::{part}/{hex}"),
];

/// What only some rules are about, most of it on hosts.
const OTHERS: [Program; 15] = [
    ("sshd", "/usr/sbin", "sshd: {team}-ops [priv]"),
    ("cron", "/usr/sbin", "cron -f -P"),
    ("sudo", "/usr/bin", "sudo -u {team} /srv/{part}/bin/{word}.sh --since {number}"),
    (
        "dpkg",
        "/usr/bin",
        "dpkg --status-fd {small} --no-triggers --unpack --auto-deconfigure /var/cache/apt/archives/{word}_{version}_amd64.deb",
    ),
    ("unattended-upgr", "/usr/bin", "unattended-upgr /usr/bin/unattended-upgrade --download-only"),
    ("modprobe", "/sbin", "modprobe -q -- {word}_{part}"),
    ("runc", "/usr/bin", "runc --root /run/containerd/runc/k8s.io --log /run/containerd/{hex}/log.json exec {hex}"),
    ("useradd", "/usr/sbin", "useradd --system --no-create-home --shell /usr/sbin/nologin {team}-{word}"),
    ("gdb", "/usr/bin", "gdb --batch --pid {number} --ex thread apply all bt"),
    ("whoami", "/usr/bin", "whoami"),
    ("id", "/usr/bin", "id -un"),
    ("shred", "/usr/bin", "shred -u /var/lib/{part}/{word}/{hex}"),
    ("nc", "/usr/bin", "nc -z -w {small} {part}.{team}.svc {port}"),
    ("base64", "/usr/bin", "base64 -d /etc/{part}/{word}.b64"),
    ("datadog-agent", "/opt/datadog-agent/bin", "datadog-agent run -p /opt/datadog-agent/run/agent-{small}.pid"),
];

/// The programs that everyday alerts of the rule are about; none: whatever the workload runs.
pub fn typical(rule: &str) -> &'static [&'static str] {
    match rule {
        "Write Binary Under UsrLocalBin" => &["cp", "tar", "pip", "rsync"],
        "Packet socket created in container" => &["tcpdump", "ip", "envoy"],
        "Clear Log Activities" => &["logrotate", "fluent-bit", "java"],
        "Schedule Cron Jobs" => &["cp", "dpkg", "tar"],
        "Update Package Repository" => &["apt-get", "unattended-upgr", "dpkg"],
        "Modify binary dirs" | "Mkdir binary dirs" => &["dpkg", "tar", "rsync"],
        "Read sensitive file trusted after startup" => &["sshd", "cron", "sudo"],
        "Change thread namespace" => &["ip", "runc"],
        "Non sudo setuid" => &["nginx", "postgres", "cron"],
        "User mgmt binaries" => &["useradd"],
        "Basic Interactive Reconnaissance" => &["whoami", "id"],
        "Set Setuid or Setgid bit" => &["dpkg", "cp", "tar"],
        "Remove Bulk Data from Disk" => &["shred"],
        "Launch Remote File Copy Tools in Container" => &["rsync"],
        "Launch Ingress Remote File Copy Tools in Container" => &["curl"],
        "Launch Suspicious Network Tool in Container" => &["tcpdump"],
        "Launch Package Management Process in Container" => &["apt-get", "pip"],
        "Read environment variable from /proc files" => &["datadog-agent"],
        "Linux Kernel Module Injection Detected" => &["modprobe"],
        "PTRACE attached to process" => &["gdb"],
        "Netcat Remote Code Execution in Container" => &["nc"],
        "Decoding Payload in Container" => &["base64"],
        "Run shell untrusted" | "DB program spawned process" => &["sh"],
        "Terminal shell in container" => &["bash"],
        "Fileless execution via memfd_create" => &["runc"],
        _ => &[],
    }
}

/// Of alerts that also come from outside of containers, the percent that do. Machines are patched, their modules
/// loaded and their users looked after; containers are replaced.
pub fn outside_percent(rule: &str) -> f64 {
    match rule {
        "Update Package Repository"
        | "Modify binary dirs"
        | "Mkdir binary dirs"
        | "User mgmt binaries"
        | "Basic Interactive Reconnaissance"
        | "Read sensitive file trusted after startup"
        | "Execution from /dev/shm"
        | "PTRACE attached to process"
        | "Linux Kernel Module Injection Detected"
        | "Fileless execution via memfd_create" => 97.0,
        "System user interactive" | "Schedule Cron Jobs" => 80.0,
        _ => 30.0,
    }
}

/// One of the typical programs by name.
pub fn named(name: &str) -> &'static Program {
    let found = PROGRAMS.iter().chain(&OTHERS).find(|program| program.0 == name);
    found.expect("rules name programs that are known here")
}

/// What starts programs in a container, and on a host.
pub const PARENTS: [&str; 8] =
    ["containerd-shim", "sh", "bash", "tini", "supervisord", "python3", "runc", "entrypoint.sh"];
pub const HOST_PARENTS: [&str; 5] = ["systemd", "sshd", "cron", "sh", "apt.systemd.daily"];
