//! `metadata`: identity, labels, annotations, owners and who manages which fields.

use event::format_micros;
use rand::Rng;
use rand::rngs::SmallRng;

use super::{Kind, Object};
use crate::random::{hex, pick, put};
use crate::world::{team, uid};

impl Object<'_> {
    pub(super) fn put_metadata(&self, rng: &mut SmallRng, out: &mut String) {
        let pod = self.pod;
        put!(out, r#""metadata":{{"name":"{}""#, self.name);
        if !self.action.cluster_wide {
            put!(out, r#","namespace":"{}""#, pod.namespace);
        }
        if self.kind == Kind::Review {
            return out.push_str(r#","creationTimestamp":null}"#);
        }
        let born = self.scene.at - (self.fixed(1) % 40_000_000) as i64 * 1_000_000;
        let born = format_micros(born - born.rem_euclid(1_000_000));
        if self.stored {
            let id = if self.kind == Kind::Pod { pod.uid.clone() } else { uid(9, self.fixed(2)) };
            let version = self.scene.version - rng.random_range(0..40_000_000.min(self.scene.version / 2));
            put!(out, r#","uid":"{id}","resourceVersion":"{version}","#);
            put!(out, r#""generation":{},"creationTimestamp":"{born}""#, 1 + self.fixed(3) % 60);
        } else {
            out.push_str(r#","creationTimestamp":null"#);
        }
        if self.size > 700 {
            self.put_labels(rng, out);
        }
        if self.kind == Kind::Pod && self.size > 700 {
            let owner = pod.name.rsplit_once('-').map_or("", |(owner, _)| owner);
            put!(
                out,
                r#","ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"{owner}","uid":"{}","controller":true,"blockOwnerDeletion":true}}]"#,
                uid(10, pod.workload_number)
            );
        }
        if self.stored && self.size > 1_000 {
            self.put_managers(rng, out, &born);
        }
        out.push('}');
    }

    fn put_labels(&self, rng: &mut SmallRng, out: &mut String) {
        let pod = self.pod;
        put!(
            out,
            r#","labels":{{"app.kubernetes.io/name":"{}","app.kubernetes.io/part-of":"{}""#,
            pod.container,
            pod.workload
        );
        put!(out, r#","app.kubernetes.io/version":"{}","team":"{}""#, pod.tag, team(pod.workload_number));
        if self.kind == Kind::Pod {
            let hash = pod.name.rsplit('-').nth(1).unwrap_or_default();
            put!(out, r#","pod-template-hash":"{hash}""#);
        }
        put!(
            out,
            r#"}},"annotations":{{"checksum/config":"{}""#,
            hex(0xB1, self.fixed(4) ^ (self.scene.version >> 14), 64)
        );
        let more: [&str; 6] = [
            r#""prometheus.io/scrape":"true""#,
            r#""cluster-autoscaler.kubernetes.io/safe-to-evict":"true""#,
            r#""sidecar.istio.io/inject":"false""#,
            r#""meta.helm.sh/release-namespace":"default""#,
            r#""kubectl.kubernetes.io/restartedAt":"2026-01-12T07:41:13Z""#,
            r#""linkerd.io/inject":"enabled""#,
        ];
        if !self.fixed(5).is_multiple_of(3) {
            put!(out, ",{}", pick(rng, &more[..3]));
        }
        if self.fixed(6).is_multiple_of(2) {
            put!(out, ",{}", more[3 + (self.fixed(7) % 3) as usize]);
        }
        out.push('}');
    }

    /// One to five managers, each with the fields that it set.
    fn put_managers(&self, rng: &mut SmallRng, out: &mut String, born: &str) {
        const MANAGERS: [&str; 9] = [
            "kubectl-client-side-apply",
            "kube-controller-manager",
            "kubelet",
            "helm",
            "argocd-controller",
            "manager",
            "kubectl-edit",
            "flux",
            "cluster-autoscaler",
        ];
        const FIELDS: [&str; 14] = [
            r#""f:labels":{".":{},"f:team":{}}"#,
            r#""f:annotations":{".":{},"f:checksum/config":{}}"#,
            r#""f:replicas":{}"#,
            r#""f:template":{"f:spec":{"f:dnsPolicy":{},"f:restartPolicy":{}}}"#,
            r#""f:containers":{"f:image":{},"f:resources":{}}"#,
            r#""f:conditions":{".":{},"k:{\"type\":\"Ready\"}":{".":{},"f:status":{}}}"#,
            r#""f:ports":{}"#,
            r#""f:data":{}"#,
            r#""f:hostIP":{},"f:podIP":{},"f:podIPs":{}"#,
            r#""f:observedGeneration":{}"#,
            r#""f:strategy":{"f:type":{}}"#,
            r#""f:securityContext":{}"#,
            r#""f:volumes":{".":{},"k:{\"name\":\"config\"}":{".":{},"f:name":{}}}"#,
            r#""f:rules":{}"#,
        ];
        out.push_str(r#","managedFields":["#);
        for n in 0..1 + self.fixed(8) % (self.size as u64 / 900).clamp(1, 5) {
            let comma = if n == 0 { "" } else { "," };
            let manager = MANAGERS[((self.fixed(9) + n) % 9) as usize];
            let operation = if n % 2 == 0 { "Update" } else { "Apply" };
            let time = format_micros(self.scene.at - rng.random_range(0..8_000_000) * 1_000_000);
            let time = if n == 0 { born } else { time.get(..19).unwrap_or(born) };
            let zone = if time.ends_with('Z') { "" } else { "Z" };
            put!(
                out,
                r#"{comma}{{"manager":"{manager}","operation":"{operation}","apiVersion":"v1","time":"{time}{zone}","#
            );
            out.push_str(r#""fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"#);
            for field in 0..1 + self.fixed(10 + n) % 4 {
                let comma = if field == 0 { "" } else { "," };
                put!(out, "{comma}{}", FIELDS[((self.fixed(20 + n) + field * 3) % 14) as usize]);
            }
            out.push_str("}}}");
        }
        out.push(']');
    }
}
