//! Pods and what makes them: containers with arguments, variables, probes and mounts, and their state.

use event::format_micros;
use rand::Rng;
use rand::rngs::SmallRng;

use super::Object;
use crate::random::{chance, hex, mix, pick, put};
use crate::world::{Pod, image_digest, part, team};

/// Names that settings are made of, in variables, files and flags alike.
pub(super) const TOPICS: [&str; 48] = [
    "cache", "queue", "retry", "timeout", "pool", "database", "broker", "topic", "region", "tenant", "feature",
    "metrics", "trace", "log", "level", "endpoint", "token", "refresh", "batch", "window", "limit", "quota", "worker",
    "thread", "buffer", "flush", "interval", "backoff", "session", "cookie", "origin", "upstream", "proxy", "header",
    "schema", "index", "shard", "replica", "snapshot", "archive", "export", "import", "locale", "currency", "ledger",
    "invoice", "webhook", "callback",
];
pub(super) const ASPECTS: [&str; 16] = [
    "url", "size", "max", "min", "seconds", "enabled", "name", "path", "mode", "count", "ratio", "host", "port", "ttl",
    "prefix", "policy",
];

/// A value that fits a setting's aspect.
pub(super) fn put_value(rng: &mut SmallRng, out: &mut String, pod: &Pod, topic: &str, aspect: &str) {
    match aspect {
        "url" => put!(
            out,
            "https://{topic}.{}.svc.cluster.local:{}/v{}",
            pod.namespace,
            rng.random_range(3000..9999),
            1 + pod.workload_number % 3
        ),
        "host" => put!(out, "{topic}-{}.{}.svc", rng.random_range(0..9), pod.namespace),
        "path" => put!(out, "/var/lib/{}/{topic}-{}", pod.container, rng.random_range(0..60)),
        "name" | "prefix" => put!(out, "{}-{topic}-{}", pod.container, team(rng.random::<u32>().into())),
        "enabled" => put!(out, "{}", rng.random::<bool>()),
        "mode" | "policy" => put!(
            out,
            "{}",
            pick(rng, &["strict", "lenient", "always", "never", "on-failure", "round-robin", "least-busy", "quorum"])
        ),
        "ratio" => put!(out, "0.{}", rng.random_range(1..999)),
        "port" => put!(out, "{}", rng.random_range(1024..32_000)),
        _ => put!(out, "{}", rng.random_range(1..5_000)),
    }
}

impl Object<'_> {
    pub(super) fn put_pod(&self, rng: &mut SmallRng, out: &mut String, end: usize) {
        out.push_str(r#","spec":"#);
        self.put_pod_spec(rng, out, end.saturating_sub(if self.stored { 900 } else { 40 }));
        if self.stored {
            self.put_pod_status(rng, out);
        }
    }

    pub(super) fn put_deployment(&self, rng: &mut SmallRng, out: &mut String, end: usize) {
        let pod = self.pod;
        let replicas = 1 + pod.workload_number % 12;
        put!(
            out,
            r#","spec":{{"replicas":{replicas},"selector":{{"matchLabels":{{"app.kubernetes.io/name":"{}"}}}},"#,
            pod.container
        );
        put!(
            out,
            r#""template":{{"metadata":{{"labels":{{"app.kubernetes.io/name":"{}","team":"{}"}}}},"spec":"#,
            pod.container,
            team(pod.workload_number)
        );
        self.put_pod_spec(rng, out, end.saturating_sub(if self.stored { 520 } else { 140 }));
        put!(
            out,
            r#"}},"strategy":{{"type":"RollingUpdate","rollingUpdate":{{"maxUnavailable":"{}%","maxSurge":"25%"}}}}"#,
            5 * (pod.workload_number % 6)
        );
        put!(out, r#","revisionHistoryLimit":{},"progressDeadlineSeconds":600}}"#, 2 + pod.workload_number % 9);
        if self.stored {
            let when = format_micros(self.scene.at - rng.random_range(0..4_000_000) * 1_000_000);
            let when = &when[..19];
            put!(
                out,
                r#","status":{{"observedGeneration":{},"replicas":{replicas},"readyReplicas":{replicas},"conditions":["#,
                self.fixed(3) % 60
            );
            put!(
                out,
                r#"{{"type":"Available","status":"True","lastUpdateTime":"{when}Z","lastTransitionTime":"{when}Z","reason":"MinimumReplicasAvailable","message":"Deployment has minimum availability."}}]}}"#
            );
        }
    }

    fn put_pod_spec(&self, rng: &mut SmallRng, out: &mut String, end: usize) {
        let pod = self.pod;
        out.push_str(r#"{"containers":["#);
        let tail = 420;
        // A workload has the containers that it has, however much of them is written.
        let count = [1, 1, 1, 2, 1, 3][(mix(0xB7, pod.workload_number) % 6) as usize];
        for n in 0..count {
            if n > 0 {
                out.push(',');
            }
            let left = end.saturating_sub(out.len() + tail);
            let stop = out.len() + left / (count - n) as usize;
            self.put_container(rng, out, n, stop);
        }
        put!(
            out,
            r#"],"restartPolicy":"Always","terminationGracePeriodSeconds":{},"dnsPolicy":"ClusterFirst""#,
            pick(rng, &[10, 30, 30, 60])
        );
        put!(out, r#","serviceAccountName":"{}""#, pod.container);
        if self.stored {
            put!(out, r#","nodeName":"{}""#, pod.node);
        }
        if self.size > 900 {
            put!(
                out,
                r#","volumes":[{{"name":"config","configMap":{{"name":"{}-config","defaultMode":420}}}},{{"name":"data","emptyDir":{{}}}}]"#,
                pod.workload
            );
            out.push_str(r#","tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}]"#);
        }
        out.push('}');
    }

    fn put_container(&self, rng: &mut SmallRng, out: &mut String, n: u64, stop: usize) {
        let pod = self.pod;
        let profile = mix(0xB2, pod.workload_number * 8 + n);
        match n {
            0 => put!(out, r#"{{"name":"{}","image":"{}:{}""#, pod.container, pod.image, pod.tag),
            _ => put!(
                out,
                r#"{{"name":"{0}-proxy","image":"registry.corp.example/platform/{0}:{1}.{2}.0""#,
                part(profile),
                1 + profile % 3,
                profile / 8 % 40
            ),
        }
        if out.len() + 500 < stop {
            out.push_str(r#","args":["#);
            for k in 0..1 + profile % 5 {
                let comma = if k == 0 { "" } else { "," };
                let (topic, aspect) = setting(profile, 100 + k);
                put!(out, r#"{comma}"--{topic}-{aspect}="#);
                put_value(rng, out, pod, topic, aspect);
                out.push('"');
            }
            let port = 1024 + profile % 30_000;
            put!(out, r#"],"ports":[{{"name":"http","containerPort":{port},"protocol":"TCP"}}]"#);
            for (kind, delay) in [("livenessProbe", 10), ("readinessProbe", 3)] {
                put!(
                    out,
                    r#","{kind}":{{"httpGet":{{"path":"/{}","port":{port},"scheme":"HTTP"}},"initialDelaySeconds":{delay},"timeoutSeconds":{},"periodSeconds":{}}}"#,
                    pick(rng, &["healthz", "livez", "ready", "status"]),
                    1 + profile % 5,
                    5 + profile / 8 % 20
                );
            }
        }
        put!(
            out,
            r#","resources":{{"limits":{{"memory":"{}Mi"}},"requests":{{"cpu":"{}m","memory":"{}Mi"}}}}"#,
            64 << (profile % 6),
            10 * (1 + profile / 8 % 40),
            32 << (profile % 6)
        );
        put!(
            out,
            r#","imagePullPolicy":"IfNotPresent","securityContext":{{"allowPrivilegeEscalation":false,"runAsUser":{}}}"#,
            1000 + profile % 900
        );
        if out.len() + 160 < stop {
            out.push_str(r#","volumeMounts":[{"name":"config","mountPath":"/etc/config"},{"name":"data","mountPath":"/data"}],"env":["#);
            // Three to forty variables; beyond that, programs are configured by files.
            for k in 0..120 {
                if out.len() + 40 >= stop && k >= 3 {
                    break;
                }
                let comma = if k == 0 { "" } else { "," };
                let (topic, aspect) = setting(profile, k);
                put!(out, r#"{comma}{{"name":"{}_{}","#, topic.to_uppercase(), aspect.to_uppercase());
                match (profile + k) % 6 {
                    0 => put!(
                        out,
                        r#""valueFrom":{{"secretKeyRef":{{"name":"{}-creds","key":"{topic}"}}}}}}"#,
                        pod.workload
                    ),
                    _ => {
                        out.push_str(r#""value":""#);
                        put_value(rng, out, pod, topic, aspect);
                        out.push_str(r#""}"#);
                    }
                }
            }
            out.push(']');
        }
        out.push('}');
    }

    fn put_pod_status(&self, rng: &mut SmallRng, out: &mut String) {
        let pod = self.pod;
        let when = format_micros(self.scene.at - (self.fixed(12) % 400_000) as i64 * 1_000_000);
        let when = &when[..19];
        put!(out, r#","status":{{"phase":"Running","conditions":["#);
        for (n, kind) in ["Initialized", "Ready", "ContainersReady", "PodScheduled"].iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            put!(
                out,
                r#"{comma}{{"type":"{kind}","status":"True","lastProbeTime":null,"lastTransitionTime":"{when}Z"}}"#
            );
        }
        put!(
            out,
            r#"],"hostIP":"{}","podIP":"{1}","podIPs":[{{"ip":"{1}"}}],"startTime":"{when}Z","#,
            pod.node_ip(),
            pod.ip
        );
        let image = image_digest(mix(0xB3, pod.workload_number) ^ u64::from(pod.tag.len() as u32));
        put!(
            out,
            r#""containerStatuses":[{{"name":"{}","state":{{"running":{{"startedAt":"{when}Z"}}}},"ready":true,"#,
            pod.container
        );
        let restarts = if chance(rng, 80.0) { 0 } else { rng.random_range(1..30) };
        put!(
            out,
            r#""restartCount":{restarts},"image":"{}:{}","imageID":"{}@sha256:{image}","#,
            pod.image,
            pod.tag,
            pod.image
        );
        put!(
            out,
            r#""containerID":"containerd://{}","started":true}}],"qosClass":"Burstable"}}"#,
            pod.long_container_id()
        );
    }

    /// Nodes: capacity, conditions and the images that they hold, by which they are as large as they are.
    pub(super) fn put_node(&self, rng: &mut SmallRng, out: &mut String, end: usize) {
        let pod = self.pod;
        put!(
            out,
            r#","spec":{{"providerID":"aws:///{}/i-{}"}}"#,
            crate::world::cluster_of(pod.node_number).region,
            hex(0xB4, pod.node_number, 17)
        );
        put!(
            out,
            r#","status":{{"capacity":{{"cpu":"{0}","memory":"{1}Ki","pods":"110"}},"allocatable":{{"cpu":"{0}","memory":"{1}Ki"}},"conditions":["#,
            4 << (pod.node_number % 4),
            rng.random_range(16_000_000..64_000_000)
        );
        for (n, kind) in ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"].iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let beat = format_micros(self.scene.at - rng.random_range(0..300) * 1_000_000);
            put!(
                out,
                r#"{comma}{{"type":"{kind}","status":"{}","lastHeartbeatTime":"{}Z"}}"#,
                if n == 3 { "True" } else { "False" },
                &beat[..19]
            );
        }
        put!(
            out,
            r#"],"addresses":[{{"type":"InternalIP","address":"{}"}},{{"type":"Hostname","address":"{}"}}],"images":["#,
            pod.node_ip(),
            pod.node
        );
        for n in 0.. {
            if out.len() + 260 >= end && n > 0 {
                break;
            }
            let comma = if n == 0 { "" } else { "," };
            let other = self.scene.population.running(rng);
            put!(
                out,
                r#"{comma}{{"names":["{0}@sha256:{1}","{0}:{2}"],"sizeBytes":{3}}}"#,
                other.image,
                image_digest(mix(0xB3, other.workload_number)),
                other.tag,
                10_000_000 + mix(0xB5, other.workload_number) % 900_000_000
            );
        }
        out.push_str("]}");
    }
}

fn setting(profile: u64, k: u64) -> (&'static str, &'static str) {
    let hash = mix(0xB6 ^ profile, k);
    (TOPICS[(hash % 48) as usize], ASPECTS[(hash / 48 % 16) as usize])
}
