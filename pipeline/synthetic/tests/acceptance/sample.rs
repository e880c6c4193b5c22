//! Lines of one class of events, and what can be measured about them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use event::Source;
use serde_json::Value;
use synthetic::{Event, Generator, Options};

/// Which events are compared with which real set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    CloudTrail,
    Metadata,
    Request,
    RequestResponse,
    Falco,
}

impl Class {
    pub fn of(event: &Event) -> Class {
        let head = &event.bytes[..event.bytes.len().min(100)];
        let has = |text: &str| head.windows(text.len()).any(|part| part == text.as_bytes());
        match event.source {
            Source::CloudTrail => Class::CloudTrail,
            Source::Falco => Class::Falco,
            Source::Kubernetes if has(r#""level":"Metadata""#) => Class::Metadata,
            Source::Kubernetes if has(r#""level":"RequestResponse""#) => Class::RequestResponse,
            Source::Kubernetes => Class::Request,
        }
    }
}

#[derive(Default)]
pub struct Sample {
    pub text: Vec<u8>,
    pub sizes: Vec<usize>,
    pub actions: BTreeMap<String, u64>,
    /// Distinct entities so far, by kind.
    entities: BTreeMap<&'static str, BTreeSet<String>>,
    /// And how many there were after each event that named one.
    curves: BTreeMap<&'static str, Vec<usize>>,
}

/// Samples of a stream until it has made `bytes` in all, by class.
pub fn take(options: Options, bytes: usize) -> BTreeMap<Class, Sample> {
    let mut samples = BTreeMap::<Class, Sample>::new();
    let mut made = 0;
    for event in Generator::parallel(options, 2) {
        made += event.bytes.len() + 1;
        samples.entry(Class::of(&event)).or_default().add(&event);
        if made >= bytes {
            break;
        }
    }
    samples
}

impl Sample {
    fn add(&mut self, event: &Event) {
        self.text.extend_from_slice(&event.bytes);
        self.text.push(b'\n');
        self.sizes.push(event.bytes.len());
        let value: Value = serde_json::from_slice(&event.bytes).unwrap();
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        match event.source {
            Source::CloudTrail => {
                let service = text("/eventSource").unwrap();
                let service = service.split('.').next().unwrap();
                self.count(format!("{service}:{}", text("/eventName").unwrap()));
                self.meet("principals", text("/userIdentity/arn"));
                self.meet("addresses", text("/sourceIPAddress"));
                self.meet("ARNs", text("/resources/0/ARN"));
            }
            Source::Kubernetes => {
                let resource = text("/objectRef/resource").unwrap_or_default();
                let sub = text("/objectRef/subresource").map(|sub| format!("/{sub}")).unwrap_or_default();
                self.count(format!("{} {resource}{sub}", text("/verb").unwrap()).trim().to_owned());
                if resource == "pods" {
                    self.meet("pods", text("/objectRef/name"));
                }
                self.meet("users", text("/user/username"));
            }
            Source::Falco => {
                self.count(text("/rule").unwrap());
                self.meet("pods", text("/output_fields/k8s.pod.name"));
                self.meet("containers", text("/output_fields/container.id"));
            }
        }
    }

    fn count(&mut self, action: String) {
        *self.actions.entry(action).or_default() += 1;
    }

    fn meet(&mut self, kind: &'static str, entity: Option<String>) {
        let Some(entity) = entity else { return };
        let known = self.entities.entry(kind).or_default();
        known.insert(entity);
        self.curves.entry(kind).or_default().push(known.len());
    }

    /// How many times smaller zstd -3 makes it, without and with long-distance matching over 128 MB.
    pub fn ratios(&self) -> (f64, f64) {
        (self.ratio(false), self.ratio(true))
    }

    fn ratio(&self, long: bool) -> f64 {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        if long {
            encoder.long_distance_matching(true).unwrap();
            encoder.window_log(27).unwrap();
        }
        encoder.write_all(&self.text).unwrap();
        self.text.len() as f64 / encoder.finish().unwrap().len() as f64
    }

    pub fn size(&self, share: f64) -> f64 {
        let mut sizes = self.sizes.clone();
        sizes.sort_unstable();
        sizes[((sizes.len() as f64 * share) as usize).min(sizes.len() - 1)] as f64
    }

    /// New entities in the last tenth of the events, by kind.
    pub fn still_new(&self) -> Vec<(&'static str, usize)> {
        let rise = |curve: &Vec<usize>| curve[curve.len() - 1] - curve[curve.len() * 9 / 10];
        self.curves.iter().map(|(kind, curve)| (*kind, rise(curve))).collect()
    }

    pub fn percent(&self, action: &str) -> f64 {
        100.0 * self.actions.get(action).copied().unwrap_or(0) as f64 / self.sizes.len() as f64
    }
}
