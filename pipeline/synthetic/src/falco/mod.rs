//! Falco alerts in the JSON form of its outputs. `output` is rendered from the same fields that `output_fields` has.

mod process;
mod programs;
mod rules;

use event::Micros;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::kubernetes::micro_time;
use crate::random::{chance, mix, put};
use crate::world::{Pod, Population, Sizes, host};
use process::Process;
pub use rules::{RULES, Rule};

/// One alert about a process in a pod.
pub struct Alert<'a> {
    pub rule: &'a str,
    pub priority: &'a str,
    pub sentence: &'a str,
    /// JSON strings with commas between them.
    pub tags: &'a str,
    pub evt_type: &'a str,
    /// Empty if it is not about a file.
    pub file: &'a str,
    pub process: &'a str,
    pub command: String,
    pub pod: &'a Pod,
}

impl Alert<'_> {
    pub fn render(&self, rng: &mut SmallRng, at: Micros) -> Vec<u8> {
        let process = Process::plain(rng, self.process, self.command.clone());
        let mut fields = vec![Field::number("evt_time", "evt.time", nanos(rng, at))];
        if !self.file.is_empty() {
            fields.push(Field::text("file", "fd.name", self.file.to_owned()));
        }
        fields.push(Field::text("evt_type", "evt.type", self.evt_type.to_owned()));
        process.base(&mut fields);
        in_pod(self.pod, &mut fields);
        let head = Head { rule: self.rule, priority: self.priority, sentence: self.sentence, tags: self.tags };
        write(&head, &self.pod.node, &fields)
    }
}

/// A field of the event: what the sentence calls it, Falco's name of it, its value.
pub struct Field {
    label: &'static str,
    name: &'static str,
    value: String,
    quoted: bool,
}

impl Field {
    pub fn text(label: &'static str, name: &'static str, value: String) -> Field {
        Field { label, name, value, quoted: true }
    }

    pub fn number(label: &'static str, name: &'static str, value: i64) -> Field {
        Field { label, name, value: value.to_string(), quoted: false }
    }
}

struct Head<'a> {
    rule: &'a str,
    priority: &'a str,
    sentence: &'a str,
    tags: &'a str,
}

/// Falco stamps nanoseconds; the stream's microseconds keep their place.
fn nanos(rng: &mut SmallRng, at: Micros) -> i64 {
    at * 1_000 + rng.random_range(0..1_000)
}

fn in_pod(pod: &Pod, fields: &mut Vec<Field>) {
    fields.push(Field::text("container_id", "container.id", pod.container_id.clone()));
    fields.push(Field::text("container_name", "container.name", pod.container.to_owned()));
    fields.push(Field::text("container_image_repository", "container.image.repository", pod.image.clone()));
    fields.push(Field::text("container_image_tag", "container.image.tag", pod.tag.clone()));
    fields.push(Field::text("k8s_pod_name", "k8s.pod.name", pod.name.clone()));
    fields.push(Field::text("k8s_ns_name", "k8s.ns.name", pod.namespace.clone()));
}

fn on_host(fields: &mut Vec<Field>) {
    fields.push(Field::text("container_id", "container.id", "host".to_owned()));
    fields.push(Field::text("container_name", "container.name", "host".to_owned()));
}

/// The first field is the time; the sentence names the others in their order, `output_fields` all by name.
fn write(head: &Head<'_>, hostname: &str, fields: &[Field]) -> Vec<u8> {
    let Head { rule, priority, sentence, tags } = head;
    let nanos: i64 = fields[0].value.parse().expect("the first field is the time");
    let time = micro_time(nanos.div_euclid(1_000));
    let (time, below) = (&time[..26], nanos.rem_euclid(1_000));
    let mut text = String::with_capacity(2_500);
    let out = &mut text;
    put!(out, r#"{{"hostname":"{hostname}","output":"{}{below:03}: {priority} {sentence} |"#, &time[11..]);
    for field in &fields[1..] {
        put!(out, " {}={}", field.label, field.value);
    }
    out.push_str(r#"","output_fields":{"#);
    let mut sorted: Vec<&Field> = fields.iter().collect();
    sorted.sort_unstable_by_key(|field| field.name);
    for (n, Field { name, value, quoted, .. }) in sorted.into_iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let quote = if *quoted { "\"" } else { "" };
        put!(out, r#"{comma}"{name}":{quote}{value}{quote}"#);
    }
    put!(
        out,
        r#"}},"priority":"{priority}","rule":"{rule}","source":"syscall","tags":[{tags}],"time":"{time}{below:03}Z"}}"#
    );
    text.into_bytes()
}

/// What the background of one frame depends on.
pub struct Background<'a> {
    pub sizes: &'a Sizes,
    pub population: Population,
}

/// One background alert, and its cluster.
pub fn background(rng: &mut SmallRng, at: Micros, of: &Background<'_>) -> (&'static str, Vec<u8>) {
    let rule = rules::draw(rng);
    let pod = match RULES.iter().position(|known| std::ptr::eq(known, rule)) {
        // Noise has its places: what Falco tells of every day, it tells of the same few workloads.
        Some(rank) if rank > 0 && !of.population.fresh => {
            of.population.settled(mix(0xFA1C, rank as u64 * 4 + rng.random_range(0..2)))
        }
        _ => of.population.running(rng),
    };
    let outside = rule.on_hosts && chance(rng, programs::outside_percent(rule.name));
    let process = Process::draw(rng, rule, &pod, outside);
    let mut fields = vec![Field::number("evt_time", "evt.time", nanos(rng, at))];
    process.special(rng, rule, &pod, &mut fields);
    fields.push(Field::text("evt_type", "evt.type", process.evt_type.to_owned()));
    process.base(&mut fields);
    if rule.has("flags") {
        fields.push(Field::text("flags", "evt.arg.flags", process.flags.to_owned()));
    }
    let tags: Vec<String> = rule.tags.split(' ').map(|tag| format!(r#""{tag}""#)).collect();
    let head = Head { rule: rule.name, priority: rule.priority, sentence: rule.sentence, tags: &tags.join(",") };
    if outside {
        on_host(&mut fields);
        return (pod.cluster, write(&head, &host(rng.random_range(0..of.sizes.hosts)), &fields));
    }
    in_pod(&pod, &mut fields);
    (pod.cluster, write(&head, &pod.node, &fields))
}
