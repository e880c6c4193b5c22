//! Objects that hold text: config maps and the schemas of custom resources.

use rand::Rng;
use rand::rngs::SmallRng;

use super::Object;
use super::workloads::{ASPECTS, TOPICS, put_value};
use crate::random::{mix, pick, put};

const VERBS: [&str; 12] = [
    "limits",
    "names",
    "selects",
    "sets",
    "bounds",
    "replaces",
    "describes",
    "enables",
    "delays",
    "records",
    "protects",
    "counts",
];
const WHENS: [&str; 12] = [
    "before the first request is served",
    "when the controller restarts",
    "for every replica on its own",
    "unless a tenant overrides it",
    "while a rollout is under way",
    "after the grace period has passed",
    "in clusters without a shared store",
    "if the field above is empty",
    "until the object is marked as deleted",
    "as long as the quota allows",
    "when more than one owner is set",
    "only for objects created since the upgrade",
];

impl Object<'_> {
    /// Files in the formats that programs read: properties, YAML, INI, nginx's.
    pub(super) fn put_config_map(&self, rng: &mut SmallRng, out: &mut String, end: usize) {
        let pod = self.pod;
        out.push_str(r#","data":{"#);
        let mut file = 0u64;
        loop {
            let profile = mix(0xC1, self.fixed(13) ^ file);
            let format = profile % 4;
            let comma = if file == 0 { "" } else { "," };
            let extension = ["properties", "yaml", "ini", "conf"][format as usize];
            put!(out, r#"{comma}"{}-{file}.{extension}":""#, TOPICS[(profile / 4 % 48) as usize]);
            let stop = end.min(out.len() + 400 + (profile / 512 % 6_000) as usize);
            while out.len() + 60 < stop {
                let (topic, aspect) = (pick(rng, &TOPICS), pick(rng, &ASPECTS));
                match format {
                    0 => put!(out, "{}.{topic}.{aspect}=", pod.container),
                    1 => put!(out, r"{topic}:\n  {aspect}: "),
                    2 => put!(out, r"[{topic}]\n{aspect} = "),
                    _ => put!(out, "  {topic}_{aspect} "),
                }
                put_value(rng, out, pod, topic, aspect);
                out.push_str(if format == 3 { r";\n" } else { r"\n" });
            }
            out.push('"');
            file += 1;
            if out.len() + 200 >= end {
                break;
            }
        }
        out.push('}');
    }

    pub(super) fn put_crd(&self, rng: &mut SmallRng, out: &mut String, end: usize) {
        let plural = self.name.split('.').next().unwrap_or("things");
        let singular = plural.trim_end_matches('s');
        let group = self.name.split_once('.').map_or("corp.example", |(_, group)| group);
        put!(
            out,
            r#","spec":{{"group":"{group}","names":{{"plural":"{plural}","singular":"{singular}","kind":"{singular}"}},"#
        );
        out.push_str(r#""scope":"Namespaced","versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{"#);
        let mut n = 0u64;
        while n < 1 || out.len() + 500 < end {
            let comma = if n == 0 { "" } else { "," };
            self.put_property(rng, out, comma, n);
            n += 1;
        }
        out.push_str(r#"}},"status":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}},"subresources":{"status":{}}}]}"#);
    }

    fn put_property(&self, rng: &mut SmallRng, out: &mut String, comma: &str, n: u64) {
        let hash = mix(0xC2, self.fixed(14) ^ n);
        let (topic, aspect) = (TOPICS[(hash % 48) as usize], ASPECTS[(hash / 48 % 16) as usize]);
        let other = pick(rng, &TOPICS);
        put!(out, r#"{comma}"{topic}{}{}{n}":{{"description":"#, aspect[..1].to_uppercase(), &aspect[1..]);
        put!(out, r#""The {topic} {aspect} {} the {other} {}.","#, pick(rng, &VERBS), pick(rng, &WHENS));
        match hash >> 20 & 3 {
            0 => put!(
                out,
                r#""type":"integer","format":"int32","minimum":{},"maximum":{}}}"#,
                rng.random_range(0..9),
                rng.random_range(10..90_000)
            ),
            1 => put!(out, r#""type":"string","maxLength":{}}}"#, rng.random_range(8..4_000)),
            2 => put!(out, r#""type":"array","items":{{"type":"string"}},"maxItems":{}}}"#, rng.random_range(1..400)),
            _ => put!(out, r#""type":"boolean","default":{}}}"#, rng.random::<bool>()),
        }
    }
}
