//! The rules that fire in the background. Names, priorities, tags and fields are Falco's; the sentences are ours. The
//! order is that of production, where rules about everyday programs make the noise; rules about attacks come last.

use std::sync::OnceLock;

use rand::Rng;
use rand::rngs::SmallRng;

use crate::random::pow;

/// Exponent of the share by rank in production, assumed (a lab that fires every rule in turn shows 1.33).
const ZIPF: f64 = 1.6;
/// Rules from here on tell of attacks: everyday work fires them far less often than their rank says.
const EVERYDAY: usize = 30;
const ATTACK_FACTOR: f64 = 0.04;

pub struct Rule {
    pub name: &'static str,
    pub priority: &'static str,
    /// Words.
    pub tags: &'static str,
    pub sentence: &'static str,
    /// Which fields its sentence has beside the usual ones: see `Process::special`.
    pub fields: &'static str,
    /// Also fires outside of containers.
    pub on_hosts: bool,
}

impl Rule {
    pub fn has(&self, field: &str) -> bool {
        self.fields.split(' ').any(|word| word == field)
    }
}

const fn rule(
    name: &'static str,
    priority: &'static str,
    tags: &'static str,
    sentence: &'static str,
    fields: &'static str,
) -> Rule {
    Rule { name, priority, tags, sentence, fields, on_hosts: false }
}

const fn anywhere(
    name: &'static str,
    priority: &'static str,
    tags: &'static str,
    sentence: &'static str,
    fields: &'static str,
) -> Rule {
    Rule { name, priority, tags, sentence, fields, on_hosts: true }
}

fn weight(rank: usize) -> f64 {
    let factor = if rank < EVERYDAY { 1.0 } else { ATTACK_FACTOR };
    factor * pow(rank as f64 + 1.0, -ZIPF)
}

/// By Zipf's law: the first rule makes nearly half of all alerts.
pub fn draw(rng: &mut SmallRng) -> &'static Rule {
    static BELOW: OnceLock<Vec<f64>> = OnceLock::new();
    let below = BELOW.get_or_init(|| {
        let weights = (0..RULES.len()).map(weight);
        weights
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect()
    });
    let u = rng.random::<f64>() * below[below.len() - 1];
    &RULES[below.partition_point(|below| *below <= u).min(RULES.len() - 1)]
}

pub static RULES: [Rule; 50] = [
    rule(
        "Contact K8S API Server From Container",
        "Notice",
        "T1565 container k8s maturity_stable mitre_discovery network",
        "A container talks to the API server without being one that should",
        "net",
    ),
    anywhere(
        "Write Binary Under UsrLocalBin",
        "Warning",
        "T1543 container filesystem host maturity_sandbox mitre_persistence",
        "A program file appeared in the directory of local programs",
        "file pcmd anc2",
    ),
    rule(
        "Packet socket created in container",
        "Notice",
        "T1557.002 container maturity_stable mitre_credential_access network",
        "A container opened a raw view of its network",
        "net args",
    ),
    anywhere(
        "Clear Log Activities",
        "Warning",
        "NIST_800-53_AU-10 T1070 container filesystem host maturity_stable mitre_defense_evasion",
        "A log file was emptied or replaced",
        "file",
    ),
    anywhere(
        "Write below monitored dir",
        "Error",
        "T1543 container filesystem host maturity_sandbox mitre_persistence",
        "A file below a watched directory was opened to write",
        "file pcmd anc2",
    ),
    rule(
        "Launch Privileged Container",
        "Informational",
        "PCI_DSS_10.2.5 T1610 cis container maturity_incubating mitre_execution",
        "A container with all privileges was started",
        "",
    ),
    anywhere(
        "System user interactive",
        "Informational",
        "NIST_800-53_AC-2 T1059 container host maturity_stable mitre_execution users",
        "An account of the system ran a command at a terminal",
        "flags",
    ),
    anywhere(
        "Write below etc",
        "Error",
        "T1098 container filesystem host maturity_sandbox mitre_persistence",
        "A file below the settings directory was opened to write",
        "file pcmd anc4",
    ),
    anywhere(
        "Schedule Cron Jobs",
        "Notice",
        "T1053.003 container filesystem host maturity_incubating mitre_execution",
        "A scheduled job was changed",
        "file",
    ),
    rule(
        "Network Connection outside Local Subnet",
        "Warning",
        "PCI_DSS_6.4.2 T1046 container maturity_incubating mitre_discovery network",
        "A connection left the subnets that are known",
        "net",
    ),
    anywhere(
        "Non sudo setuid",
        "Notice",
        "T1548.001 container host maturity_incubating mitre_privilege_escalation users",
        "A program changed its user by itself",
        "uidarg",
    ),
    anywhere(
        "Update Package Repository",
        "Notice",
        "T1072 container filesystem host maturity_sandbox mitre_execution",
        "A list of package sources was changed",
        "file pcmd",
    ),
    anywhere(
        "Write below root",
        "Error",
        "TA0003 container filesystem host maturity_sandbox mitre_persistence",
        "A file in the root directory was opened to write",
        "file",
    ),
    anywhere(
        "Change thread namespace",
        "Notice",
        "T1611 container host maturity_incubating mitre_privilege_escalation process",
        "A thread moved to another namespace",
        "",
    ),
    rule(
        "Launch Excessively Capable Container",
        "Informational",
        "T1610 cis container maturity_incubating mitre_execution",
        "A container with more capabilities than most was started",
        "caps",
    ),
    anywhere(
        "Modify binary dirs",
        "Error",
        "T1222.002 container filesystem host maturity_sandbox mitre_defense_evasion",
        "A file in a program directory was renamed or removed",
        "file pcmd args",
    ),
    anywhere(
        "Mkdir binary dirs",
        "Error",
        "T1222.002 container filesystem host maturity_sandbox mitre_persistence",
        "A directory was made among the programs",
        "path",
    ),
    rule(
        "Launch Sensitive Mount Container",
        "Informational",
        "T1610 cis container maturity_sandbox mitre_execution",
        "A container that mounts a part of its host was started",
        "mounts",
    ),
    rule(
        "Launch Disallowed Container",
        "Warning",
        "T1610 container maturity_sandbox mitre_lateral_movement",
        "A container of an image that is not listed was started",
        "",
    ),
    anywhere(
        "Set Setuid or Setgid bit",
        "Notice",
        "T1548.001 container host maturity_incubating mitre_privilege_escalation process users",
        "A file was made to run as its owner",
        "path modearg",
    ),
    rule(
        "Launch Remote File Copy Tools in Container",
        "Notice",
        "T1020 container maturity_incubating mitre_exfiltration network process",
        "A tool that copies files elsewhere ran in a container",
        "flags",
    ),
    rule(
        "Launch Suspicious Network Tool in Container",
        "Notice",
        "T1059 container maturity_incubating mitre_execution network process",
        "A tool that explores networks ran in a container",
        "flags",
    ),
    anywhere(
        "Basic Interactive Reconnaissance",
        "Notice",
        "TA0043 container host maturity_sandbox mitre_reconnaissance process",
        "A command that tells where one is ran at a terminal",
        "flags",
    ),
    anywhere(
        "User mgmt binaries",
        "Notice",
        "T1098 host maturity_incubating mitre_persistence software_mgmt users",
        "A program that manages accounts ran",
        "anc4 flags",
    ),
    anywhere(
        "Read sensitive file trusted after startup",
        "Warning",
        "T1555 container filesystem host maturity_stable mitre_credential_access",
        "A server reads a file of accounts long after its start",
        "file pcmd anc4",
    ),
    anywhere(
        "PTRACE anti-debug attempt",
        "Notice",
        "T1622 container host maturity_stable mitre_defense_evasion process",
        "A program asked to be traced by its parent",
        "pcmd",
    ),
    rule(
        "Read environment variable from /proc files",
        "Warning",
        "T1083 container filesystem maturity_incubating mitre_discovery process",
        "The variables of another process were read",
        "file anc4",
    ),
    rule(
        "Kubernetes Client Tool Launched in Container",
        "Warning",
        "T1610 container maturity_sandbox mitre_execution",
        "A client of the cluster ran in a container",
        "flags",
    ),
    rule(
        "Launch Ingress Remote File Copy Tools in Container",
        "Notice",
        "TA0011 container maturity_incubating mitre_command_and_control network process",
        "A tool that fetches files ran in a container",
        "flags",
    ),
    anywhere(
        "Remove Bulk Data from Disk",
        "Warning",
        "T1485 container filesystem host maturity_stable mitre_impact process",
        "A program that wipes disks ran",
        "flags",
    ),
    anywhere(
        "Create Symlink Over Sensitive Files",
        "Warning",
        "T1555 container filesystem host maturity_stable mitre_credential_access",
        "A link to a file of accounts was made",
        "path",
    ),
    rule(
        "Contact cloud metadata service from container",
        "Notice",
        "T1565 container maturity_incubating mitre_discovery network",
        "A container asked the metadata service of its machine",
        "net",
    ),
    anywhere(
        "Execution from /dev/shm",
        "Warning",
        "T1059.004 container host maturity_stable mitre_execution",
        "A program in shared memory was run",
        "file cwd pcmd flags",
    ),
    anywhere(
        "Delete or rename shell history",
        "Warning",
        "T1070 container filesystem host maturity_incubating mitre_defense_evasion process",
        "The history of a shell was removed",
        "file path",
    ),
    anywhere(
        "Find AWS Credentials",
        "Warning",
        "T1552 aws container host maturity_stable mitre_credential_access process",
        "A program looks for cloud credentials in files",
        "pcmd cwd flags",
    ),
    rule(
        "Decoding Payload in Container",
        "Informational",
        "T1132 container maturity_sandbox mitre_command_and_control process",
        "Encoded text was decoded in a container",
        "flags",
    ),
    anywhere(
        "Read sensitive file untrusted",
        "Warning",
        "T1555 container filesystem host maturity_stable mitre_credential_access",
        "A program that has no need to reads a file of accounts",
        "file anc4",
    ),
    anywhere(
        "Run shell untrusted",
        "Notice",
        "T1059.004 container host maturity_stable mitre_execution process shell",
        "A program that has no need to started a shell",
        "pexe pcmd anc7 flags",
    ),
    rule(
        "Redirect STDOUT/STDIN to Network Connection in Container",
        "Notice",
        "T1059 container maturity_stable mitre_execution network process",
        "Standard input or output of a program became a connection",
        "anc4 net",
    ),
    rule(
        "Launch Package Management Process in Container",
        "Error",
        "T1505 container maturity_incubating mitre_persistence process software_mgmt",
        "A package manager ran in a container",
        "flags",
    ),
    anywhere(
        "DB program spawned process",
        "Notice",
        "T1190 container database host maturity_incubating mitre_execution process",
        "A database started another program",
        "flags",
    ),
    anywhere(
        "Search Private Keys or Passwords",
        "Warning",
        "T1552.001 container filesystem host maturity_stable mitre_credential_access process",
        "A program looks for keys or passwords in files",
        "flags",
    ),
    rule(
        "Terminal shell in container",
        "Notice",
        "T1059 container maturity_stable mitre_execution shell",
        "Someone started a shell with a terminal in a container",
        "flags",
    ),
    anywhere(
        "Adding ssh keys to authorized_keys",
        "Warning",
        "T1098.004 filesystem host maturity_incubating mitre_persistence",
        "A key that may log in was added",
        "file",
    ),
    anywhere(
        "Directory traversal monitored file read",
        "Warning",
        "T1555 container filesystem host maturity_stable mitre_credential_access",
        "A watched file was read by a path that climbs",
        "file anc4",
    ),
    anywhere(
        "PTRACE attached to process",
        "Warning",
        "T1055.008 container host maturity_stable mitre_privilege_escalation process",
        "A program took control of another",
        "pcmd",
    ),
    anywhere(
        "Linux Kernel Module Injection Detected",
        "Warning",
        "TA0003 container host maturity_stable mitre_persistence process",
        "A module was loaded into the kernel",
        "anc2 args",
    ),
    rule(
        "Netcat Remote Code Execution in Container",
        "Warning",
        "T1059 container maturity_stable mitre_execution network process",
        "A tool that hands a shell to a connection ran in a container",
        "flags",
    ),
    rule(
        "Drop and execute new binary in container",
        "Critical",
        "PCI_DSS_11.5.1 TA0003 container maturity_stable mitre_persistence process",
        "A program that is not of the image was run",
        "file cwd anc2 flags",
    ),
    anywhere(
        "Fileless execution via memfd_create",
        "Critical",
        "T1620 container host maturity_stable mitre_defense_evasion process",
        "A program that is no file was run",
        "cwd anc2 flags",
    ),
];
