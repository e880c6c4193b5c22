//! Attacks as chains of events, each with a benign twin that looks alike but is everyday work, and the truth about
//! both: when, who, and which detections are meant to see it. They follow the vendors' fields and the attack's
//! logic; no rule text was used to write them.

use std::collections::BTreeMap;

use event::{Micros, Source, format_micros};
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use super::cloudtrail::Record;
use super::falco::Alert;
use super::kubernetes::{Request, object, uri};
use super::world::{Caller, Pod, Principal, cluster, draw, namespace, uuid, zipf};
use super::{Event, SECOND};

/// One line of the truth file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Planted {
    pub name: String,
    /// Everyday work that must not be found.
    pub benign: bool,
    /// The rule meant to see it (for a twin: the rule that must stay silent).
    pub detection: String,
    /// Who and where.
    pub entity: BTreeMap<String, String>,
    pub first: String,
    pub last: String,
    /// BLAKE3 of the bytes of each event, hex: evidence that holds one of them is about this.
    pub events: Vec<String>,
}

type Chain = (BTreeMap<String, String>, Vec<Event>);

struct Technique {
    name: &'static str,
    detection: &'static str,
    attack: fn(&mut SmallRng, Micros) -> Chain,
    twin: fn(&mut SmallRng, Micros) -> Chain,
}

const TECHNIQUES: [Technique; 5] = [
    Technique {
        name: "exec into a pod with a stolen service account",
        detection: "k8s-pod-exec",
        attack: |rng, at| pod_access(rng, at, "exec"),
        twin: |rng, at| pod_access(rng, at, "log"),
    },
    Technique {
        name: "secrets of a namespace read one by one",
        detection: "k8s-secret-read-burst",
        attack: |rng, at| secret_reads(rng, at, 14),
        twin: |rng, at| secret_reads(rng, at, 4),
    },
    Technique {
        name: "trail switched off",
        detection: "aws-cloudtrail-tampering",
        attack: |rng, at| trail_call(rng, at, "StopLogging"),
        twin: |rng, at| trail_call(rng, at, "StartLogging"),
    },
    Technique {
        name: "stolen key tries what it may do",
        detection: "aws-access-denied-burst",
        attack: |rng, at| denied_calls(rng, at, 7),
        twin: |rng, at| denied_calls(rng, at, 1),
    },
    Technique {
        name: "container writes release_agent to escape",
        detection: "falco-escape-primitive",
        attack: |rng, at| escape(rng, at, true),
        twin: |rng, at| escape(rng, at, false),
    },
];

/// The `number`th attack of a stream and, a little later, its twin. Starts at `at`.
pub fn plant(seed: u64, number: u64, at: Micros) -> (Vec<Planted>, Vec<Event>) {
    let mut rng = draw(seed ^ 0xA77A_C4ED, number);
    let technique = &TECHNIQUES[(number % TECHNIQUES.len() as u64) as usize];
    let mut events = Vec::new();
    let mut truth = Vec::new();
    for (benign, chain, start) in [(false, technique.attack, at), (true, technique.twin, at + 7 * SECOND)] {
        let (entity, steps) = chain(&mut rng, start);
        let times = steps.iter().map(|e| e.time);
        truth.push(Planted {
            name: if benign { format!("benign twin of: {}", technique.name) } else { technique.name.to_owned() },
            benign,
            detection: technique.detection.to_owned(),
            entity,
            first: format_micros(times.clone().min().unwrap_or(start)),
            last: format_micros(times.max().unwrap_or(start)),
            events: steps.iter().map(|e| digest(&e.bytes)).collect(),
        });
        events.extend(steps);
    }
    (truth, events)
}

/// What [`Planted::events`] holds.
pub fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn entity<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn kubernetes(cluster: &'static str, time: Micros, bytes: Vec<u8>) -> Event {
    Event { source: Source::Kubernetes, cluster: Some(cluster), time, bytes }
}

/// kubectl exec over WebSocket (a GET that switches protocols), or reading the log of the same pod.
fn pod_access(rng: &mut SmallRng, at: Micros, subresource: &str) -> Chain {
    let pod = Pod::new(zipf(rng, 20_000));
    let caller = Caller::service_account(500 + zipf(rng, 300));
    let query = match subresource {
        "exec" => {
            "?command=sh&command=-c&command=cat+%2Fvar%2Frun%2Fsecrets%2Fkubernetes.io%2Fserviceaccount%2Ftoken&stdout=true"
        }
        _ => "?tailLines=200",
    };
    let request = Request {
        audit_id: uuid(rng),
        verb: "get",
        uri: uri("", &pod.namespace, "pods", Some(&pod.name)) + "/" + subresource + query,
        object: object("", &pod.namespace, "pods", Some(&pod.name)) + &format!(r#","subresource":"{subresource}""#),
        code: if subresource == "exec" { 101 } else { 200 },
        caller: &caller,
        body: String::new(),
        level: "Metadata",
    };
    let started = request.render("ResponseStarted", at - 9_000, at);
    let complete = request.render("ResponseComplete", at - 9_000, at + 3 * SECOND);
    let events = vec![kubernetes(pod.cluster, at, started), kubernetes(pod.cluster, at + 3 * SECOND, complete)];
    (entity([("cluster", pod.cluster), ("actor_user_name", &caller.username)]), events)
}

/// The same person reads `distinct` secrets, fifty reads in all: an attack walks through them, a twin repeats a few.
fn secret_reads(rng: &mut SmallRng, at: Micros, distinct: usize) -> Chain {
    let caller = Caller::human(200 + rng.random_range(0..800));
    let (cluster, space) = (cluster(rng.random_range(0..3)), namespace(zipf(rng, 120)));
    let events = (0..50)
        .map(|n| {
            let name = format!("{}-{}", ["api-key", "db", "tls", "token"][n % distinct % 4], n % distinct);
            let time = at + n as i64 * SECOND;
            let request = Request {
                audit_id: uuid(rng),
                verb: "get",
                uri: uri("", &space, "secrets", Some(&name)),
                object: object("", &space, "secrets", Some(&name)),
                code: 200,
                caller: &caller,
                body: String::new(),
                level: "Metadata",
            };
            kubernetes(cluster, time, request.render("ResponseComplete", time - 2_000, time))
        })
        .collect();
    (entity([("cluster", cluster), ("actor_user_name", &caller.username)]), events)
}

fn cloudtrail(time: Micros, bytes: Vec<u8>) -> Event {
    Event { source: Source::CloudTrail, cluster: None, time, bytes }
}

fn trail_call(rng: &mut SmallRng, at: Micros, call: &str) -> Chain {
    let principal = Principal::user(5_000 + rng.random_range(0..100_000));
    let trail =
        format!("arn:aws:cloudtrail:{}:{}:trail/org-{}", principal.region, principal.account, rng.random::<u16>());
    let record = Record {
        service: "cloudtrail",
        call,
        read_only: false,
        parameters: format!(r#"{{"name":"{trail}"}}"#),
        response: "null".to_owned(),
        error: None,
        principal: &principal,
    };
    let (_, bytes) = record.render(rng, at);
    (entity([("cloud_account_uid", &principal.account)]), vec![cloudtrail(at, bytes)])
}

/// Twenty-one denied calls in a minute, of `distinct` kinds.
fn denied_calls(rng: &mut SmallRng, at: Micros, distinct: usize) -> Chain {
    const PROBES: [(&str, &str); 7] = [
        ("iam", "ListUsers"),
        ("s3", "ListBuckets"),
        ("ec2", "DescribeSnapshots"),
        ("secretsmanager", "ListSecrets"),
        ("lambda", "ListFunctions20150331"),
        ("organizations", "DescribeOrganization"),
        ("rds", "DescribeDBSnapshots"),
    ];
    let principal = Principal::user(5_000 + rng.random_range(0..100_000));
    let events = (0..21)
        .map(|n| {
            let (service, call) = PROBES[n % distinct];
            let time = at + n as i64 * 3 * SECOND;
            let code = if service == "ec2" { "Client.UnauthorizedOperation" } else { "AccessDenied" };
            let message = format!("User: {} is not authorized to perform: {service}:{call}", principal.arn());
            let record = Record {
                service,
                call,
                read_only: true,
                parameters: "null".to_owned(),
                response: "null".to_owned(),
                error: Some((code, message)),
                principal: &principal,
            };
            cloudtrail(time, record.render(rng, time).1)
        })
        .collect();
    (entity([("cloud_account_uid", &principal.account)]), events)
}

/// Falco sees a container write a cgroup's release_agent; its twin writes a file of its own.
fn escape(rng: &mut SmallRng, at: Micros, attack: bool) -> Chain {
    let pod = Pod::new(10_000 + rng.random_range(0..10_000));
    let alert = match attack {
        true => Alert {
            rule: "Detect release_agent File Container Escapes",
            priority: "Critical",
            sentence: "Detect an attempt to exploit a container escape using release_agent file",
            tags: r#""container","maturity_stable","mitre_privilege_escalation","process","T1611""#,
            evt_type: "openat",
            file: "/sys/fs/cgroup/release_agent",
            process: "sh",
            command: "sh -c echo /cmd > /sys/fs/cgroup/release_agent".to_owned(),
            pod: &pod,
        },
        false => Alert {
            rule: "Write below monitored dir",
            priority: "Warning",
            sentence: "File below monitored directory opened for writing",
            tags: r#""container","filesystem","maturity_sandbox""#,
            evt_type: "openat",
            file: "/opt/app/release_notes",
            process: "sh",
            command: "sh -c echo done > /opt/app/release_notes".to_owned(),
            pod: &pod,
        },
    };
    let bytes = alert.render(rng, at);
    let event = Event { source: Source::Falco, cluster: Some(pod.cluster), time: at, bytes };
    (entity([("cluster", pod.cluster), ("k8s_pod_name", &pod.name)]), vec![event])
}
