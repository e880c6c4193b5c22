//! Falco alerts in the JSON form of its outputs. `output` is rendered from the same fields that `output_fields` has.

use event::Micros;
use rand::Rng;
use rand::rngs::SmallRng;

use super::kubernetes::micro_time;
use super::world::{Pod, zipf};

/// Rule, priority, what the sentence says, tags, event type, file. Everyday noise, the commonest first.
const NOISE: [(&str, &str, &str, &str, &str, &str); 6] = [
    (
        "Contact K8S API Server From Container",
        "Notice",
        "Unexpected connection to K8s API Server from container",
        r#""container","k8s","maturity_stable","mitre_discovery","network","T1565""#,
        "connect",
        "",
    ),
    (
        "Write Binary Under UsrLocalBin",
        "Warning",
        "Binary written under /usr/local/bin",
        r#""container","filesystem","maturity_sandbox","mitre_persistence""#,
        "openat",
        "/usr/local/bin/tool",
    ),
    (
        "Packet socket created in container",
        "Notice",
        "Packet socket was created in a container",
        r#""container","maturity_stable","mitre_credential_access","network","T1557.002""#,
        "socket",
        "",
    ),
    (
        "Redirect STDOUT/STDIN to Network Connection in Container",
        "Notice",
        "Redirect stdout/stdin to network connection",
        r#""container","maturity_stable","mitre_execution","network","process","T1059""#,
        "dup2",
        "",
    ),
    (
        "Clear Log Activities",
        "Warning",
        "Log files were tampered",
        r#""container","filesystem","host","maturity_stable","mitre_defense_evasion","T1070""#,
        "openat",
        "/var/log/app.log",
    ),
    (
        "Run shell untrusted",
        "Notice",
        "Shell spawned by untrusted binary",
        r#""container","host","maturity_stable","mitre_execution","process","shell","T1059.004""#,
        "execve",
        "",
    ),
];

/// One alert about a process in a pod.
pub struct Alert<'a> {
    pub rule: &'a str,
    pub priority: &'a str,
    pub sentence: &'a str,
    pub tags: &'a str,
    pub evt_type: &'a str,
    pub file: &'a str,
    pub process: &'a str,
    pub command: String,
    pub pod: &'a Pod,
}

impl Alert<'_> {
    pub fn render(&self, rng: &mut SmallRng, at: Micros) -> Vec<u8> {
        let Alert { rule, priority, sentence, tags, evt_type, file, process, command, pod } = self;
        let nanos = at * 1000 + rng.random_range(0..1000);
        let time = micro_time(at).replace('Z', &format!("{:03}Z", nanos % 1000));
        let Pod { name, namespace, node, container_id, container, image, .. } = pod;
        let pid = rng.random_range(1_000..4_000_000);
        format!(
            r#"{{"hostname":"{node}","output":"{clock}: {priority} {sentence} (file={file} process={process} command={command} proc_exepath=/usr/bin/{process} parent=containerd-shim user=root user_uid=0 evt_type={evt_type} container_id={container_id} container_name={container} container_image_repository={image} k8s_ns={namespace} k8s_pod_name={name})","output_fields":{{"container.id":"{container_id}","container.image.repository":"{image}","container.name":"{container}","evt.time":{nanos},"evt.type":"{evt_type}","fd.name":{file_field},"k8s.ns.name":"{namespace}","k8s.pod.name":"{name}","proc.cmdline":"{command}","proc.exepath":"/usr/bin/{process}","proc.name":"{process}","proc.pid":{pid},"proc.pname":"containerd-shim","proc.tty":0,"user.name":"root","user.uid":0}},"priority":"{priority}","rule":"{rule}","source":"syscall","tags":[{tags}],"time":"{time}"}}"#,
            clock = &time[11..29],
            file_field = if file.is_empty() { "null".to_owned() } else { format!(r#""{file}""#) },
        )
        .into_bytes()
    }
}

/// One background alert, and its cluster.
pub fn background(rng: &mut SmallRng, at: Micros) -> (&'static str, Vec<u8>) {
    let pod = Pod::draw(rng);
    let (rule, priority, sentence, tags, evt_type, file) = NOISE[zipf(rng, NOISE.len() as u64) as usize];
    let process = ["python3", "node", "java", "curl", "sh"][zipf(rng, 5) as usize];
    let command = format!("{process} /srv/{}/main --port {}", pod.container, 1024 + zipf(rng, 60_000));
    let alert = Alert { rule, priority, sentence, tags, evt_type, file, process, command, pod: &pod };
    (pod.cluster, alert.render(rng, at))
}
