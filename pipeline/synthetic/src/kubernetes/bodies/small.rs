//! Objects of a few hundred bytes to a few thousand, and patches.

use event::format_micros;
use rand::Rng;
use rand::rngs::SmallRng;

use super::super::micro_time;
use super::workloads::TOPICS;
use super::{Kind, Object, Scene};
use crate::random::{chance, draw, mix, pick, put, put_base64};
use crate::world::{Pod, part, person, team, uid};

/// A merge patch: some annotations, a replica count, a condition.
pub(super) fn put_patch(rng: &mut SmallRng, out: &mut String, scene: &Scene<'_>, kind: Kind) {
    match kind {
        Kind::Pod | Kind::Node => {
            let status = if rng.random_range(0..20) == 0 { "False" } else { "True" };
            put!(out, r#"{{"status":{{"conditions":[{{"status":"{status}","type":"Ready"}}]"#);
            // A pod that starts has an address from now on; three more patches tell what becomes of it.
            if kind == Kind::Pod && chance(rng, 25.0) {
                put!(out, r#","podIP":"{}""#, scene.pod.ip);
            }
            out.push_str("}}");
        }
        Kind::Deployment if rng.random::<bool>() => {
            put!(out, r#"{{"spec":{{"replicas":{}}}}}"#, rng.random_range(1..20))
        }
        Kind::Deployment => {
            let Pod { container, image, tag, .. } = scene.pod;
            let container = format!(r#"{{"name":"{container}","image":"{image}:{tag}"}}"#);
            put!(out, r#"{{"spec":{{"template":{{"spec":{{"containers":[{container}]}}}}}}}}"#);
        }
        _ => {
            let (topic, value) = (pick(rng, &TOPICS), rng.random_range(0..100_000));
            put!(out, r#"{{"metadata":{{"annotations":{{"corp.example/{topic}":"{value}"}}}}}}"#);
        }
    }
}

impl Object<'_> {
    pub(super) fn put_small(&self, rng: &mut SmallRng, out: &mut String, end: usize) {
        let pod = self.pod;
        let now = micro_time(self.scene.at);
        match self.kind {
            Kind::Lease => {
                put!(
                    out,
                    r#","spec":{{"holderIdentity":"{}_{}","leaseDurationSeconds":{},"#,
                    pod.name,
                    pod.uid,
                    pick(rng, &[15, 40, 60])
                );
                put!(
                    out,
                    r#""acquireTime":"{}","renewTime":"{now}","leaseTransitions":{}}}"#,
                    micro_time(self.scene.at - (self.fixed(15) % 900_000_000_000) as i64),
                    self.fixed(16) % 90
                );
            }
            Kind::Event => self.put_event(rng, out, &now),
            Kind::Review => self.put_review(rng, out),
            Kind::Secret => {
                put!(out, r#","type":"Opaque","data":{{"username":"{}","password":""#, "c3Zj");
                put_base64(out, &mut draw(self.fixed(17), 1), 32);
                out.push_str(r#""}"#);
            }
            Kind::ServiceAccount => put!(
                out,
                r#","secrets":[{{"name":"{0}-token-{1}"}}],"imagePullSecrets":[{{"name":"{0}-dockercfg-{1}"}}]"#,
                pod.container,
                crate::random::suffix(0xD1, pod.workload_number, 5)
            ),
            Kind::Namespace => out.push_str(r#","spec":{"finalizers":["kubernetes"]},"status":{"phase":"Active"}"#),
            Kind::Service => {
                put!(
                    out,
                    r#","spec":{{"type":"ClusterIP","clusterIP":"172.20.{}.{}","selector":{{"app.kubernetes.io/name":"{}"}},"ports":["#,
                    self.fixed(18) % 256,
                    self.fixed(19) % 254,
                    pod.container
                );
                self.put_each(rng, out, end, 110, |rng, out, n| {
                    put!(
                        out,
                        r#"{{"name":"{}-{n}","protocol":"TCP","port":{},"targetPort":{}}}"#,
                        pick(rng, &TOPICS),
                        rng.random_range(80..9000),
                        rng.random_range(1024..32_000)
                    )
                });
                out.push_str(r#"],"sessionAffinity":"None","ipFamilies":["IPv4"]},"status":{"loadBalancer":{}}"#);
            }
            Kind::Binding => {
                put!(
                    out,
                    r#","roleRef":{{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"{}"}},"subjects":["#,
                    self.name
                );
                self.put_each(rng, out, end, 60, |rng, out, _| match rng.random_range(0..3) {
                    0 => put!(
                        out,
                        r#"{{"kind":"Group","apiGroup":"rbac.authorization.k8s.io","name":"team-{}"}}"#,
                        team(rng.random::<u32>().into())
                    ),
                    1 => put!(
                        out,
                        r#"{{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"{}@corp.example"}}"#,
                        person(rng.random_range(0..240))
                    ),
                    _ => put!(
                        out,
                        r#"{{"kind":"ServiceAccount","name":"{}","namespace":"{}"}}"#,
                        part(rng.random::<u32>().into()),
                        crate::world::namespace(rng.random_range(0..250))
                    ),
                });
                out.push(']');
            }
            Kind::Ingress => {
                put!(
                    out,
                    r#","spec":{{"ingressClassName":"nginx","tls":[{{"hosts":["{}.corp.example"],"secretName":"{}-tls"}}],"rules":["#,
                    pod.namespace,
                    pod.workload
                );
                self.put_each(rng, out, end, 100, |rng, out, n| put!(out, r#"{{"host":"{}-{n}.{}.corp.example","http":{{"paths":[{{"path":"/{}","pathType":"Prefix","backend":{{"service":{{"name":"{}","port":{{"number":{}}}}}}}}}]}}}}"#, pick(rng, &TOPICS), pod.namespace, pick(rng, &TOPICS), pod.workload, rng.random_range(80..9000)));
                out.push_str("]}");
            }
            Kind::Webhook => {
                out.push_str(r#","webhooks":["#);
                self.put_each(rng, out, end, 300, |rng, out, n| {
                    put!(out, r#"{{"name":"{}-{n}.corp.example","clientConfig":{{"service":{{"namespace":"{}","name":"{}","path":"/mutate"}},"caBundle":""#, pick(rng, &TOPICS), pod.namespace, pod.workload);
                    // The bundle of the cluster's authority: the same in all of its webhooks.
                    put_base64(out, &mut draw(0xCAB0, pod.workload_number % crate::world::CLUSTERS), 240);
                    put!(out, r#"="}},"rules":[{{"operations":["CREATE","UPDATE"],"apiGroups":["*"],"apiVersions":["*"],"resources":["pods"]}}],"failurePolicy":"{}","timeoutSeconds":{},"sideEffects":"None"}}"#, pick(rng, &["Fail", "Ignore"]), rng.random_range(1..30));
                });
                out.push(']');
            }
            _ => self.put_spec(rng, out, end),
        }
    }

    /// Volumes, autoscalers, schemas of flow and API services: settings and conditions.
    fn put_spec(&self, rng: &mut SmallRng, out: &mut String, end: usize) {
        out.push_str(r#","spec":{"#);
        match self.kind {
            Kind::Volume => put!(
                out,
                r#""capacity":{{"storage":"{}Gi"}},"accessModes":["ReadWriteOnce"],"storageClassName":"gp3","csi":{{"driver":"ebs.csi.aws.com","volumeHandle":"vol-{}"}}"#,
                1 << (self.fixed(21) % 10),
                crate::random::hex(0xD2, self.fixed(22), 17)
            ),
            Kind::Autoscaler => put!(
                out,
                r#""scaleTargetRef":{{"kind":"Deployment","name":"{}","apiVersion":"apps/v1"}},"minReplicas":{},"maxReplicas":{}"#,
                self.pod.workload,
                1 + self.fixed(23) % 4,
                5 + self.fixed(24) % 60
            ),
            Kind::ApiService => put!(
                out,
                r#""service":{{"namespace":"{}","name":"{}","port":443}},"group":"{}","version":"v1","groupPriorityMinimum":{}"#,
                self.pod.namespace,
                self.pod.workload,
                self.name,
                100 + self.fixed(25) % 900
            ),
            _ => put!(
                out,
                r#""priorityLevelConfiguration":{{"name":"{}"}},"matchingPrecedence":{}"#,
                self.name,
                100 + self.fixed(26) % 9_000
            ),
        }
        out.push_str(r#"},"status":{"conditions":["#);
        self.put_each(rng, out, end, 60, |rng, out, _| {
            let when = format_micros(self.scene.at - rng.random_range(0..9_000_000) * 1_000_000);
            let (topic, other) = (pick(rng, &TOPICS), pick(rng, &TOPICS));
            put!(
                out,
                r#"{{"type":"{}{}","status":"{}","lastTransitionTime":"{}Z","#,
                topic[..1].to_uppercase(),
                &topic[1..],
                pick(rng, &["True", "False", "Unknown"]),
                &when[..19]
            );
            put!(
                out,
                r#""reason":"{}{}","message":"the {topic} is within its {other} of {}"}}"#,
                other[..1].to_uppercase(),
                &other[1..],
                rng.random_range(1..9_000)
            );
        });
        out.push_str("]}");
    }

    fn put_each(
        &self,
        rng: &mut SmallRng,
        out: &mut String,
        end: usize,
        tail: usize,
        mut one: impl FnMut(&mut SmallRng, &mut String, u64),
    ) {
        for n in 0.. {
            if out.len() + tail >= end && n > 0 {
                break;
            }
            if n > 0 {
                out.push(',');
            }
            one(rng, out, n);
        }
    }

    fn put_event(&self, rng: &mut SmallRng, out: &mut String, now: &str) {
        let pod = self.pod;
        let (reason, kind) = pick(
            rng,
            &[
                ("Pulled", "Normal"),
                ("Created", "Normal"),
                ("Started", "Normal"),
                ("Scheduled", "Normal"),
                ("BackOff", "Warning"),
                ("Unhealthy", "Warning"),
                ("Killing", "Normal"),
                ("FailedMount", "Warning"),
            ],
        );
        put!(
            out,
            r#","involvedObject":{{"kind":"Pod","namespace":"{}","name":"{}","uid":"{}","apiVersion":"v1"}},"reason":"{reason}","#,
            pod.namespace,
            pod.name,
            pod.uid
        );
        put!(
            out,
            r#""message":"{} in {} ms","type":"{kind}","count":{},"#,
            message(reason, pod.container),
            rng.random_range(1..9_000),
            rng.random_range(1..60)
        );
        put!(
            out,
            r#""source":{{"component":"kubelet","host":"{}"}},"firstTimestamp":"{now}","lastTimestamp":"{now}""#,
            pod.node
        );
    }

    fn put_review(&self, rng: &mut SmallRng, out: &mut String) {
        let pod = self.pod;
        match self.action.resource {
            "serviceaccounts/token" => put!(
                out,
                r#","spec":{{"audiences":["https://kubernetes.default.svc"],"expirationSeconds":3607,"boundObjectRef":{{"kind":"Pod","apiVersion":"v1","name":"{}","uid":"{}"}}}}"#,
                pod.name,
                pod.uid
            ),
            "pods/binding" => put!(out, r#","target":{{"kind":"Node","name":"{}"}}"#, pod.node),
            "tokenreviews" => put!(
                out,
                r#","spec":{{"token":"[redacted]","audiences":["{}"]}},"status":{{"authenticated":true,"user":{{"username":"system:serviceaccount:{}:{}","uid":"{}"}}}}"#,
                pick(rng, &["vault", "kubernetes", "sts"]),
                pod.namespace,
                pod.container,
                uid(17, pod.workload_number)
            ),
            _ => {
                put!(
                    out,
                    r#","spec":{{"resourceAttributes":{{"namespace":"{}","verb":"{}","resource":"{}","name":"{}"}},"#,
                    pod.namespace,
                    pick(rng, &["get", "list", "create", "update", "delete"]),
                    pick(rng, &["pods", "secrets", "configmaps", "deployments", "namespaces"]),
                    pod.workload
                );
                put!(
                    out,
                    r#""user":"system:serviceaccount:{}:{}","groups":["system:authenticated"]}},"status":{{"allowed":{},"reason":"RBAC: rule {}"}}"#,
                    pod.namespace,
                    pod.container,
                    rng.random_range(0..8) != 0,
                    mix(0xD3, pod.workload_number) % 4_000
                );
            }
        }
    }
}

fn message(reason: &str, container: &str) -> String {
    match reason {
        "Pulled" => format!("Image of {container} is on the node"),
        "Scheduled" => format!("Assigned {container}"),
        "BackOff" => format!("Restarting {container} is put off"),
        "Unhealthy" => format!("A probe of {container} failed"),
        "FailedMount" => format!("A volume of {container} is not there yet"),
        "Killing" => format!("Stopping {container}"),
        _ => format!("{reason} container {container}"),
    }
}
