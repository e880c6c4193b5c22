//! What a request says of the pods it makes: from the pod itself or the template of its controller, as columns.
//! Fields and defaults: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
//!
//! The body of a create or update holds the whole spec. Of a patch the response does, if it was recorded; else the patch
//! alone is looked at, and then what it does not say is unknown: flags are true or null, and whatever concerns all
//! containers is null.

use std::borrow::Cow;

use crate::kubernetes::MORE;
use crate::pod_feature::PodFeature;
use crate::transform::Made;
use crate::value;

/// A request as far as it matters here; bodies are JSON texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'r> {
    pub verb: &'r str,
    pub resource: &'r str,
    pub subresource: Option<&'r str>,
    pub body: Option<&'r str>,
    pub response: Option<&'r str>,
}

/// What is known of the pods.
#[derive(Debug, Default)]
pub(crate) struct Pod {
    /// The whole spec was there.
    whole: bool,
    spec: Spec,
    pod: Security,
    containers: Vec<Container>,
}

#[derive(Debug, Default)]
struct Spec {
    host_pid: bool,
    host_ipc: bool,
    host_network: bool,
    automount_token: Option<bool>,
    service_links: Option<bool>,
    service_account: Option<String>,
    node_name: Option<String>,
    sysctls: Distinct,
    volumes: Distinct,
    host_paths: Distinct,
}

/// A security context, the pod's or a container's.
#[derive(Debug, Default)]
struct Security {
    privileged: bool,
    host_process: bool,
    run_as_user: Option<i64>,
    run_as_non_root: Option<bool>,
    escalation: Option<bool>,
    read_only: bool,
    caps_added: Distinct,
    drops_all: bool,
    seccomp: Option<String>,
    apparmor: Option<String>,
    selinux: Distinct,
    proc_mount: Option<String>,
}

#[derive(Debug, Default)]
struct Container {
    kind: Kind,
    security: Security,
    image: Option<String>,
    command: Option<String>,
    host_ports: Distinct,
    probe_hosts: Distinct,
    secret_env: Distinct,
    limits: Resources,
    requests: Resources,
    liveness: bool,
    readiness: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Main,
    Init,
    Ephemeral,
}

#[derive(Clone, Copy, Debug, Default)]
struct Resources {
    cpu: bool,
    memory: bool,
    storage: bool,
}

/// Texts without repetition, in order.
#[derive(Debug, Default)]
struct Distinct(Vec<String>);

/// Elements of a list. Real pods have some dozens of anything; one with more ends with [`MORE`].
const LIST_MAX: usize = 256;
/// Operations of a JSON patch that are looked at, and steps of their paths.
const PATCH_MAX: usize = 1000;
const PATCH_DEPTH_MAX: usize = 16;

impl Pod {
    /// `None` when the request makes no pods or does not say what they are.
    pub fn of(request: Request) -> Option<Pod> {
        let template: &[&str] = match (request.resource, request.subresource) {
            ("pods", None | Some("ephemeralcontainers" | "resize")) => &[],
            ("podtemplates", None) => &["template"],
            ("cronjobs", None) => &["spec", "jobTemplate", "spec", "template"],
            (
                "deployments" | "daemonsets" | "statefulsets" | "replicasets" | "replicationcontrollers" | "jobs",
                None,
            ) => &["spec", "template"],
            _ => return None,
        };
        let whole = |body: Option<&str>| {
            let template = value::at(body?, template)?;
            let spec = value::field(template, "spec").filter(|spec| spec.starts_with('{'))?;
            let mut pod = Pod { whole: true, ..Pod::default() };
            pod.read(spec, value::at(template, &["metadata", "annotations"]));
            Some(pod)
        };
        match request.verb {
            "create" | "update" => whole(request.body).or_else(|| whole(request.response)),
            "patch" => whole(request.response).or_else(|| Pod::of_patch(request.body?, template)),
            _ => None,
        }
    }

    fn of_patch(body: &str, template: &[&str]) -> Option<Pod> {
        let mut pod = Pod::default();
        if !body.starts_with('[') {
            let template = value::at(body, template)?;
            pod.read(value::field(template, "spec")?, value::at(template, &["metadata", "annotations"]));
            return Some(pod);
        }
        let mut any = false;
        for operation in value::elements(body).take(PATCH_MAX) {
            if let Some(spec) = patched_spec(operation, template) {
                pod.read(&spec, None);
                any = true;
            }
        }
        any.then_some(pod)
    }

    fn read(&mut self, spec: &str, annotations: Option<&str>) {
        for (key, value) in value::fields(spec) {
            match &*key {
                "hostPID" => self.spec.host_pid |= is_true(value),
                "hostIPC" => self.spec.host_ipc |= is_true(value),
                "hostNetwork" => self.spec.host_network |= is_true(value),
                "automountServiceAccountToken" => self.spec.automount_token = value::boolean(value),
                "enableServiceLinks" => self.spec.service_links = value::boolean(value),
                "serviceAccountName" => self.spec.service_account = text(value),
                // The old name of the same.
                "serviceAccount" if self.spec.service_account.is_none() => self.spec.service_account = text(value),
                "nodeName" => self.spec.node_name = text(value),
                "securityContext" => {
                    self.pod.read(value);
                    let sysctls = value::field(value, "sysctls").into_iter().flat_map(value::elements);
                    sysctls
                        .filter_map(|sysctl| text(value::field(sysctl, "name")?))
                        .for_each(|s| self.spec.sysctls.add(s));
                }
                "volumes" => value::elements(value).for_each(|volume| self.spec.volume(volume)),
                "containers" => self.containers(Kind::Main, value, annotations),
                "initContainers" => self.containers(Kind::Init, value, annotations),
                "ephemeralContainers" => self.containers(Kind::Ephemeral, value, annotations),
                _ => {}
            }
        }
    }

    fn containers(&mut self, kind: Kind, list: &str, annotations: Option<&str>) {
        let objects = value::elements(list).filter(|container| container.starts_with('{'));
        self.containers.extend(objects.map(|container| Container::of(kind, container, annotations)));
    }

    /// A column's value; `None` for what is not known.
    pub fn feature(&self, feature: PodFeature) -> Option<Made<'_>> {
        let each = || self.containers.iter();
        let any = |yes: bool| (yes || self.whole).then_some(Made::Bool(yes));
        let all = |test: fn(&Pod, &Container) -> bool| {
            let some = self.whole && !self.containers.is_empty();
            some.then(|| Made::Bool(each().all(|container| test(self, container))))
        };
        match feature {
            PodFeature::Privileged => any(each().any(|c| c.security.privileged)),
            PodFeature::HostPid => any(self.spec.host_pid),
            PodFeature::HostIpc => any(self.spec.host_ipc),
            PodFeature::HostNetwork => any(self.spec.host_network),
            PodFeature::HostProcess => any(self.pod.host_process || each().any(|c| c.security.host_process)),
            PodFeature::HostPorts => self.lists(each().map(|c| &c.host_ports).collect()),
            PodFeature::HostPaths => self.lists(vec![&self.spec.host_paths]),
            PodFeature::CapsAdded => self.lists(each().map(|c| &c.security.caps_added).collect()),
            PodFeature::CapsDropAll => all(|_, c| c.security.drops_all),
            PodFeature::RunAsRoot => {
                any(each().any(|c| self.user(c) == Some(0)) || self.pod.run_as_user == Some(0) && !self.whole)
            }
            PodFeature::RunAsNonRoot => {
                all(|pod, c| c.security.run_as_non_root.or(pod.pod.run_as_non_root) == Some(true))
            }
            PodFeature::NoPrivilegeEscalation => all(|_, c| c.security.escalation == Some(false)),
            PodFeature::ReadOnlyRootFilesystem => all(|_, c| c.security.read_only),
            PodFeature::Seccomp => self.profiles(|security| security.seccomp.as_ref()),
            PodFeature::Apparmor => self.profiles(|security| security.apparmor.as_ref()),
            PodFeature::Selinux => {
                self.lists(std::iter::once(&self.pod).chain(each().map(|c| &c.security)).map(|s| &s.selinux).collect())
            }
            PodFeature::Sysctls => self.lists(vec![&self.spec.sysctls]),
            PodFeature::ProcMounts => self.list(each().filter_map(|c| c.security.proc_mount.as_ref())),
            PodFeature::ResourcesMissing => self.missing(&RESOURCES),
            PodFeature::ProbesMissing => self.missing(&PROBES),
            PodFeature::ProbeHosts => self.lists(each().map(|c| &c.probe_hosts).collect()),
            PodFeature::AutomountToken => self.spec.automount_token.map(Made::Bool),
            PodFeature::ServiceLinks => self.spec.service_links.map(Made::Bool),
            PodFeature::ServiceAccount => self.spec.service_account.as_deref().map(|t| Made::Text(t.into())),
            PodFeature::NodeName => self.spec.node_name.as_deref().map(|t| Made::Text(t.into())),
            PodFeature::Images => self.list(each().filter_map(|c| c.image.as_ref())),
            PodFeature::Commands => self.list(each().filter_map(|c| c.command.as_ref())),
            PodFeature::SecretEnv => self.lists(each().map(|c| &c.secret_env).collect()),
            PodFeature::Volumes => self.lists(vec![&self.spec.volumes]),
            PodFeature::SpecWhole => Some(Made::Bool(self.whole)),
        }
    }

    fn user(&self, container: &Container) -> Option<i64> {
        container.security.run_as_user.or(self.pod.run_as_user)
    }

    fn lists<'p>(&'p self, lists: Vec<&'p Distinct>) -> Option<Made<'p>> {
        self.list(lists.into_iter().flat_map(|list| &list.0))
    }

    /// A list that is empty only if it is known to be.
    fn list<'p>(&'p self, texts: impl Iterator<Item = &'p String>) -> Option<Made<'p>> {
        let mut list: Vec<Cow<str>> = Vec::new();
        for text in texts {
            if list.iter().any(|known| known == text) {
                continue;
            }
            if list.len() == LIST_MAX {
                list.push(MORE.into());
                break;
            }
            list.push(text.as_str().into());
        }
        (self.whole || !list.is_empty()).then_some(Made::List(list))
    }

    /// The profiles that the containers run under, `Unset` among them.
    fn profiles(&self, of: fn(&Security) -> Option<&String>) -> Option<Made<'_>> {
        let unset = self.whole.then_some("Unset");
        let mut profiles: Vec<Cow<str>> = Vec::new();
        for security in self.containers.iter().map(|c| &c.security) {
            let profile = of(security).or_else(|| of(&self.pod)).map(String::as_str).or(unset);
            profiles.extend(profile.filter(|p| !profiles.iter().any(|known| known == p)).map(Cow::Borrowed));
            if profiles.len() > LIST_MAX {
                break;
            }
        }
        if self.containers.is_empty() {
            profiles.extend(of(&self.pod).map(|profile| Cow::Borrowed(profile.as_str())));
        }
        (self.whole || !profiles.is_empty()).then_some(Made::List(profiles))
    }

    /// Which of these some container lacks.
    fn missing(&self, wanted: &[Trait]) -> Option<Made<'_>> {
        let lacks = |has: fn(&Container) -> bool| self.containers.iter().any(|container| !has(container));
        let missing = || wanted.iter().filter(|(_, has)| lacks(*has)).map(|(name, _)| (*name).into());
        self.whole.then(|| Made::List(missing().collect()))
    }
}

/// What a container should have, and whether one has it.
type Trait = (&'static str, fn(&Container) -> bool);

/// A limit is the request too where there is none. Ephemeral containers cannot have resources or probes.
const RESOURCES: [Trait; 5] = [
    ("limits.cpu", |c| c.limits.cpu || c.kind == Kind::Ephemeral),
    ("limits.memory", |c| c.limits.memory || c.kind == Kind::Ephemeral),
    ("limits.ephemeral-storage", |c| c.limits.storage || c.kind == Kind::Ephemeral),
    ("requests.cpu", |c| c.requests.cpu || c.limits.cpu || c.kind == Kind::Ephemeral),
    ("requests.memory", |c| c.requests.memory || c.limits.memory || c.kind == Kind::Ephemeral),
];
const PROBES: [Trait; 2] = [
    ("livenessProbe", |c| c.liveness || c.kind != Kind::Main),
    ("readinessProbe", |c| c.readiness || c.kind != Kind::Main),
];

impl Spec {
    fn volume(&mut self, volume: &str) {
        let mut kind = None;
        for (key, value) in value::fields(volume) {
            match &*key {
                "name" => continue,
                "hostPath" => {
                    if let Some(path) = value::field(value, "path").and_then(text) {
                        self.host_paths.add(path);
                    }
                }
                _ => {}
            }
            kind = Some(key.into_owned());
        }
        self.volumes.add(kind.unwrap_or_else(|| "emptyDir".into()));
    }
}

impl Security {
    fn read(&mut self, context: &str) {
        for (key, value) in value::fields(context) {
            match &*key {
                "privileged" => self.privileged = is_true(value),
                "runAsUser" => self.run_as_user = value::int(value),
                "runAsNonRoot" => self.run_as_non_root = value::boolean(value),
                "allowPrivilegeEscalation" => self.escalation = value::boolean(value),
                "readOnlyRootFilesystem" => self.read_only = is_true(value),
                "procMount" => self.proc_mount = text(value),
                "windowsOptions" => self.host_process = value::field(value, "hostProcess").is_some_and(is_true),
                "seccompProfile" => self.seccomp = value::field(value, "type").and_then(text),
                "appArmorProfile" => self.apparmor = value::field(value, "type").and_then(text),
                "seLinuxOptions" => value::fields(value)
                    .filter(|(_, value)| *value != "null")
                    .for_each(|(key, value)| self.selinux.add(format!("{key}={}", value::text(value)))),
                "capabilities" => {
                    let list = |key| value::field(value, key).into_iter().flat_map(value::elements);
                    list("add").for_each(|cap| self.caps_added.add(capability(cap)));
                    self.drops_all = list("drop").any(|cap| capability(cap) == "ALL");
                }
                _ => {}
            }
        }
    }
}

impl Container {
    fn of(kind: Kind, container: &str, annotations: Option<&str>) -> Container {
        let mut read = Container { kind, ..Container::default() };
        let (mut command, mut name) = (Vec::new(), None);
        for (key, value) in value::fields(container) {
            match &*key {
                "name" => name = text(value),
                "image" => read.image = text(value),
                // Either may come first; the command is run with the arguments.
                "command" => command.splice(0..0, value::elements(value).filter_map(text)).for_each(drop),
                "args" => command.extend(value::elements(value).filter_map(text)),
                "securityContext" => read.security.read(value),
                "ports" => {
                    let ports = value::elements(value).filter_map(|port| value::int(value::field(port, "hostPort")?));
                    ports.filter(|port| *port > 0).for_each(|port| read.host_ports.add(port.to_string()));
                }
                "resources" => {
                    read.limits = value::field(value, "limits").map(Resources::of).unwrap_or_default();
                    read.requests = value::field(value, "requests").map(Resources::of).unwrap_or_default();
                }
                "env" => value::elements(value).for_each(|env| {
                    let name = value::at(env, &["valueFrom", "secretKeyRef", "name"]).and_then(text);
                    name.into_iter().for_each(|name| read.secret_env.add(name));
                }),
                "envFrom" => value::elements(value).for_each(|env| {
                    let name = value::at(env, &["secretRef", "name"]).and_then(text);
                    name.into_iter().for_each(|name| read.secret_env.add(name));
                }),
                "livenessProbe" => (read.liveness, _) = (value != "null", read.probe(value)),
                "readinessProbe" => (read.readiness, _) = (value != "null", read.probe(value)),
                "startupProbe" => read.probe(value),
                "lifecycle" => value::fields(value).for_each(|(_, hook)| read.probe(hook)),
                _ => {}
            }
        }
        if !command.is_empty() {
            read.command = Some(command.join(" "));
        }
        if read.security.apparmor.is_none() {
            read.security.apparmor = annotations.zip(name).and_then(|(all, name)| apparmor(all, &name));
        }
        read
    }

    fn probe(&mut self, probe: &str) {
        for action in ["httpGet", "tcpSocket"] {
            let host = value::at(probe, &[action, "host"]).and_then(text).filter(|host| !host.is_empty());
            host.into_iter().for_each(|host| self.probe_hosts.add(host));
        }
    }
}

impl Resources {
    fn of(raw: &str) -> Resources {
        let has = |key| value::field(raw, key).is_some();
        Resources { cpu: has("cpu"), memory: has("memory"), storage: has("ephemeral-storage") }
    }
}

impl Distinct {
    fn add(&mut self, text: String) {
        // One more than is shown, so that a cut list is known to be one.
        if self.0.len() <= LIST_MAX && !self.0.contains(&text) {
            self.0.push(text);
        }
    }
}

fn text(raw: &str) -> Option<String> {
    (raw != "null").then(|| value::text(raw).into_owned())
}

fn is_true(raw: &str) -> bool {
    value::boolean(raw) == Some(true)
}

/// `NET_ADMIN`, also where it was written `CAP_NET_ADMIN` or `net_admin`.
fn capability(raw: &str) -> String {
    let upper = value::text(raw).to_uppercase();
    upper.strip_prefix("CAP_").map_or_else(|| upper.clone(), str::to_owned)
}

/// The profile of a container before version 1.30: `runtime/default`, `unconfined`, `localhost/name`.
fn apparmor(annotations: &str, container: &str) -> Option<String> {
    let key = format!("container.apparmor.security.beta.kubernetes.io/{container}");
    let profile = value::field(annotations, &key).and_then(text)?;
    Some(match profile.as_str() {
        "runtime/default" => "RuntimeDefault".into(),
        "unconfined" => "Unconfined".into(),
        other if other.starts_with("localhost/") => "Localhost".into(),
        _ => profile,
    })
}

/// What an operation of a JSON patch (https://www.rfc-editor.org/rfc/rfc6902) says of the pod spec, as a spec that
/// has nothing else: `/spec/containers/0/image` with `"a"` is `{"containers":[{"image":"a"}]}` with a list that does
/// not say which element it is.
fn patched_spec(operation: &str, template: &[&str]) -> Option<String> {
    let kind = value::field(operation, "op").map(value::text)?;
    if !matches!(&*kind, "add" | "replace") {
        return None;
    }
    let (path, value) = (value::text(value::field(operation, "path")?), value::field(operation, "value")?);
    let steps: Vec<String> = path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    if steps.len() > PATCH_DEPTH_MAX {
        return None;
    }
    let spec: Vec<&str> = template.iter().copied().chain(["spec"]).collect();
    let common = steps.iter().zip(&spec).take_while(|(a, b)| a.as_str() == **b).count();
    if common == steps.len() {
        return value::at(value, &spec[common..]).map(str::to_owned);
    }
    if common < spec.len() {
        return None;
    }
    Some(steps[common..].iter().rev().fold(value.to_owned(), |inner, step| match step.as_str() {
        index if index == "-" || index.parse::<usize>().is_ok() => format!("[{inner}]"),
        key => format!("{{{}:{inner}}}", serde_json::Value::from(key)),
    }))
}
