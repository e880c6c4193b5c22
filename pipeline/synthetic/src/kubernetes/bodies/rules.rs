//! Objects that are lists of rules: alerts, roles, and the addresses behind a service.

use rand::Rng;
use rand::rngs::SmallRng;

use super::workloads::TOPICS;
use super::{Kind, Object};
use crate::random::{chance, pick, put};
use crate::world::team;

impl Object<'_> {
    pub(super) fn put_rules(&self, rng: &mut SmallRng, out: &mut String, end: usize) {
        let pod = self.pod;
        if self.action.resource == "servicemonitors" {
            put!(
                out,
                r#","spec":{{"selector":{{"matchLabels":{{"app.kubernetes.io/name":"{}"}}}},"endpoints":["#,
                pod.container
            );
        } else {
            put!(
                out,
                r#","spec":{{"groups":[{{"name":"{}","interval":"{}s","rules":["#,
                self.name,
                pick(rng, &[15, 30, 60])
            );
        }
        for n in 0.. {
            if out.len() + 120 >= end && n > 0 {
                break;
            }
            let comma = if n == 0 { "" } else { "," };
            let (topic, other) = (pick(rng, &TOPICS), pick(rng, &TOPICS));
            if self.action.resource == "servicemonitors" {
                put!(
                    out,
                    r#"{comma}{{"port":"http","interval":"{}s","path":"/metrics/{topic}"}}"#,
                    rng.random_range(5..90)
                );
                continue;
            }
            let (minutes, threshold) = (pick(rng, &[1, 5, 10, 15, 30]), rng.random_range(1..1000));
            put!(
                out,
                r#"{comma}{{"alert":"{}{}{}High","expr":"sum by (pod) (rate({}_{topic}_{other}_total{{namespace=\"{}\"}}[{minutes}m])) > 0.{threshold}","#,
                topic[..1].to_uppercase(),
                &topic[1..],
                n,
                pod.container,
                pod.namespace
            );
            put!(
                out,
                r#""for":"{minutes}m","labels":{{"severity":"{}","team":"{}"}},"#,
                pick(rng, &["warning", "critical", "info"]),
                team(pod.workload_number)
            );
            put!(
                out,
                r#""annotations":{{"summary":"The {topic} of {} outruns its {other} by more than {threshold} per mille.","runbook_url":"https://runbooks.corp.example/{}/{topic}-{other}"}}}}"#,
                pod.container,
                team(pod.workload_number)
            );
        }
        out.push_str(if self.action.resource == "servicemonitors" { "]}" } else { "]}]}" });
    }

    pub(super) fn put_role(&self, rng: &mut SmallRng, out: &mut String, end: usize) {
        const RESOURCES: [(&str, &str); 12] = [
            ("", "pods"),
            ("", "configmaps"),
            ("", "secrets"),
            ("", "services"),
            ("", "events"),
            ("apps", "deployments"),
            ("apps", "statefulsets"),
            ("batch", "jobs"),
            ("networking.k8s.io", "ingresses"),
            ("coordination.k8s.io", "leases"),
            ("monitoring.coreos.com", "servicemonitors"),
            ("discovery.k8s.io", "endpointslices"),
        ];
        const VERBS: [&str; 5] = [
            r#""get""#,
            r#""get","list""#,
            r#""get","list","watch""#,
            r#""create","update","patch""#,
            r#""get","list","watch","create","delete""#,
        ];
        out.push_str(r#","rules":["#);
        for n in 0.. {
            if out.len() + 60 >= end && n > 0 {
                break;
            }
            let comma = if n == 0 { "" } else { "," };
            let (group, resource) = pick(rng, &RESOURCES);
            put!(out, r#"{comma}{{"verbs":[{}],"apiGroups":["{group}"],"resources":["{resource}""#, pick(rng, &VERBS));
            if resource != "secrets" && chance(rng, 30.0) {
                put!(out, r#","{}/status""#, resource);
            }
            out.push(']');
            // Credentials are given by name.
            if resource == "secrets" || chance(rng, 25.0) {
                put!(out, r#","resourceNames":["{}-{}"]"#, self.pod.workload, pick(rng, &TOPICS));
            }
            out.push('}');
        }
        out.push(']');
    }

    pub(super) fn put_endpoints(&self, rng: &mut SmallRng, out: &mut String, end: usize) {
        let slice = self.action.resource == "endpointslices" && self.kind == Kind::Endpoints;
        out.push_str(if slice { r#","addressType":"IPv4","endpoints":["# } else { r#","subsets":[{"addresses":["# });
        for n in 0.. {
            if out.len() + 120 >= end && n > 0 {
                break;
            }
            let comma = if n == 0 { "" } else { "," };
            let pod = self.scene.population.running(rng);
            if slice {
                put!(
                    out,
                    r#"{comma}{{"addresses":["{}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"#,
                    pod.ip
                );
            } else {
                put!(out, r#"{comma}{{"ip":"{}","#, pod.ip);
            }
            put!(
                out,
                r#""nodeName":"{}","targetRef":{{"kind":"Pod","namespace":"{}","name":"{}","uid":"{}"}}}}"#,
                pod.node,
                pod.namespace,
                pod.name,
                pod.uid
            );
        }
        let port = 1024 + self.pod.workload_number * 7;
        let ports = format!(r#""ports":[{{"name":"http","port":{port},"protocol":"TCP"}}]"#);
        put!(out, "{}{ports}", "],");
        if !slice {
            out.push_str("}]");
        }
    }
}
