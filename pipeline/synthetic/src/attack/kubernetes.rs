//! Kubernetes audit events as API servers of EKS write them (`audit.k8s.io/v1`), with what its authenticator adds.
//! https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/

use event::{Micros, Source};
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use super::cast::{Cluster, Node, Person, Pod, digits, letters, uuid, uuid_of};
use super::cloudtrail::Identity;
use super::scene::Draft;
use crate::kubernetes::micro_time;

pub(super) const ARGO_CD: &str = "argocd:argocd-application-controller";

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Actor {
    user: Value,
    ip: String,
    agent: String,
    /// Why the server lets it.
    reason: String,
}

impl Actor {
    /// An AWS identity that the cluster lets in by an access entry.
    pub fn aws(identity: &Identity, groups: &[&str], agent: &str) -> Actor {
        let mut groups: Vec<Value> = groups.iter().map(|group| json!(group)).collect();
        groups.push(json!("system:authenticated"));
        let user = json!({
            "username": identity.user_in_cluster(),
            "uid": format!("aws-iam-authenticator:{}:{}", identity.account, identity.id()),
            "groups": groups,
            "extra": {
                "accessKeyId": [identity.key()],
                "arn": [identity.arn()],
                "canonicalArn": [identity.canonical_arn()],
                "principalId": [identity.id()],
                "sessionName": [identity.session()],
                "sigs.k8s.io/aws-iam-authenticator/principalId": [identity.id()],
            },
        });
        let reason = "EKS Access Policy: allowed by ClusterRoleBinding \"arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy\" \
                      of ClusterRole \"arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy\" to User";
        Actor {
            reason: format!("{reason} \"{}\"", identity.id()),
            user,
            ip: identity.ip.clone(),
            agent: agent.to_owned(),
        }
    }

    /// A person known to the cluster's own issuer.
    pub fn person(person: &Person, group: &str) -> Actor {
        Actor {
            user: json!({"username": person.email, "uid": uuid_of("person", &person.email), "groups": [group, "system:authenticated"]}),
            ip: person.ip.clone(),
            agent: person.kubectl.clone(),
            reason: format!(
                "RBAC: allowed by ClusterRoleBinding \"{group}\" of ClusterRole \"edit\" to Group \"{group}\""
            ),
        }
    }

    /// The service account of a pod, with the pod's token.
    pub fn pod(pod: &Pod) -> Actor {
        let name = &pod.service_account;
        let user = json!({
            "username": pod.identity(),
            "uid": pod.service_account_uid,
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{}", pod.namespace), "system:authenticated"],
            "extra": {
                "authentication.kubernetes.io/credential-id": [format!("JTI={}", uuid_of("token", &pod.uid))],
                "authentication.kubernetes.io/node-name": [pod.node.name],
                "authentication.kubernetes.io/node-uid": [pod.node.uid],
                "authentication.kubernetes.io/pod-name": [pod.name],
                "authentication.kubernetes.io/pod-uid": [pod.uid],
            },
        });
        let reason = format!(
            "RBAC: allowed by RoleBinding \"{name}/{ns}\" of Role \"{name}\" to ServiceAccount \"{name}/{ns}\"",
            ns = pod.namespace
        );
        Actor { user, ip: pod.ip.clone(), agent: format!("{name}/v0.31.2 (linux/amd64) kubernetes/$Format"), reason }
    }

    /// The service account of a pod, with a token that is bound to no pod.
    pub fn token(pod: &Pod) -> Actor {
        let mut actor = Actor::pod(pod);
        if let Some(extra) = actor.user["extra"].as_object_mut() {
            extra.retain(|key, _| key.ends_with("credential-id"));
        }
        actor
    }

    /// A service account of the cluster itself, `argocd:argocd-application-controller`.
    pub fn service(cluster: &Cluster, account: &str, agent: &str) -> Actor {
        let namespace = account.split(':').next().unwrap_or_default();
        let username = format!("system:serviceaccount:{account}");
        let user = json!({
            "username": username,
            "uid": uuid_of("service account", &format!("{}/{account}", cluster.name)),
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
        });
        let short = account.replace(':', "/");
        let reason = format!(
            "RBAC: allowed by ClusterRoleBinding \"{short}\" of ClusterRole \"{short}\" to ServiceAccount \"{short}\""
        );
        let host = 2 + digits("service ip", &username, 2).bytes().map(u64::from).sum::<u64>() % 200;
        Actor { user, ip: format!("10.0.3.{host}"), agent: agent.to_owned(), reason }
    }

    pub fn argo_cd(cluster: &Cluster) -> Actor {
        Actor::service(cluster, ARGO_CD, "argocd-application-controller/v0.0.0 (linux/amd64) kubernetes/$Format")
    }

    /// One of the control plane's own controllers.
    pub fn controller(cluster: &Cluster, name: &str) -> Actor {
        let agent =
            "kube-controller-manager/v1.31.5 (linux/amd64) kubernetes/3d90c9c/system:serviceaccount:kube-system";
        Actor::service(cluster, &format!("kube-system:{name}"), &format!("{agent}:{name}"))
    }

    pub fn kubelet(cluster: &Cluster, node: &Node) -> Actor {
        let mut actor = Actor::aws(&Identity::node(cluster, node), &["system:bootstrappers", "system:nodes"], "");
        actor.user["username"] = json!(format!("system:node:{}", node.name));
        actor.ip.clone_from(&node.ip);
        "kubelet/v1.31.5 (linux/amd64) kubernetes/3d90c9c".clone_into(&mut actor.agent);
        actor.reason.clear();
        actor
    }

    pub fn anonymous(ip: &str, agent: &str) -> Actor {
        Actor {
            user: json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]}),
            ip: ip.to_owned(),
            agent: agent.to_owned(),
            reason: String::new(),
        }
    }

    pub fn username(&self) -> String {
        self.user["username"].as_str().unwrap_or_default().to_owned()
    }

    pub fn at(mut self, ip: &str) -> Actor {
        ip.clone_into(&mut self.ip);
        self
    }

    pub fn with(mut self, agent: &str) -> Actor {
        agent.clone_into(&mut self.agent);
        self
    }

    pub fn let_by(mut self, reason: &str) -> Actor {
        reason.clone_into(&mut self.reason);
        self
    }
}

/// What a request is about.
#[derive(Clone, Debug)]
pub(super) struct Object {
    group: &'static str,
    resource: &'static str,
    subresource: Option<&'static str>,
    namespace: Option<String>,
    name: Option<String>,
}

impl Object {
    pub fn core(resource: &'static str) -> Object {
        Object { group: "", resource, subresource: None, namespace: None, name: None }
    }

    /// Of a group whose version is `v1`.
    pub fn of(group: &'static str, resource: &'static str) -> Object {
        Object { group, ..Object::core(resource) }
    }

    pub fn within(mut self, namespace: &str) -> Object {
        self.namespace = Some(namespace.to_owned());
        self
    }

    pub fn named(mut self, name: &str) -> Object {
        self.name = Some(name.to_owned());
        self
    }

    pub fn sub(mut self, subresource: &'static str) -> Object {
        self.subresource = Some(subresource);
        self
    }

    pub fn pod(pod: &Pod) -> Object {
        Object::core("pods").within(&pod.namespace).named(&pod.name)
    }

    /// A create goes to the collection, unless to a part of an object.
    fn path(&self, verb: &str) -> String {
        let mut path = if self.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}/v1", self.group) };
        if let Some(namespace) = &self.namespace {
            path += &format!("/namespaces/{namespace}");
        }
        path += &format!("/{}", self.resource);
        if let Some(name) = self.name.as_ref().filter(|_| verb != "create" || self.subresource.is_some()) {
            path += &format!("/{name}");
        }
        if let Some(part) = self.subresource {
            path += &format!("/{part}");
        }
        path
    }

    fn reference(&self) -> Value {
        let mut reference = json!({"resource": self.resource, "apiVersion": "v1"});
        let parts = [
            ("apiGroup", (!self.group.is_empty()).then_some(self.group)),
            ("namespace", self.namespace.as_deref()),
            ("name", self.name.as_deref()),
            ("subresource", self.subresource),
        ];
        for (key, value) in parts {
            if let Some(value) = value {
                reference[key] = json!(value);
            }
        }
        reference
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Call {
    actor: Actor,
    verb: &'static str,
    object: Object,
    path: Option<String>,
    query: String,
    code: u16,
    request: Option<Value>,
    response: Option<Value>,
    annotations: Vec<(&'static str, String)>,
}

impl Call {
    pub fn new(actor: &Actor, verb: &'static str, object: Object) -> Call {
        let code = if verb == "create" { 201 } else { 200 };
        let (path, query, annotations) = (None, String::new(), Vec::new());
        Call { actor: actor.clone(), verb, object, path, query, code, request: None, response: None, annotations }
    }

    /// A path that is no resource, `/version`.
    pub fn path(actor: &Actor, path: &str) -> Call {
        Call { path: Some(path.to_owned()), ..Call::new(actor, "get", Object::core("")) }
    }

    /// kubectl exec over WebSocket: a GET that switches protocols.
    pub fn exec(actor: &Actor, pod: &Pod, argv: &[&str]) -> Call {
        // A shell or a viewer by itself wants a terminal; one that is told what to do does not.
        let terminal = argv.len() == 1;
        let words: Vec<String> = argv.iter().map(|word| format!("command={}", url(word))).collect();
        let tail = if terminal { "&stdin=true&stdout=true&tty=true" } else { "&stderr=true&stdout=true" };
        let query = format!("{}&container={}{tail}", words.join("&"), pod.container);
        let code = 101;
        Call { query, code, ..Call::new(actor, "get", Object::pod(pod).sub("exec")) }
    }

    /// Level Request.
    pub fn body(mut self, request: Value) -> Call {
        self.request = Some(request);
        self
    }

    /// Level RequestResponse.
    pub fn answer(mut self, response: Value) -> Call {
        self.response = Some(response);
        self
    }

    /// Asked for, and made as asked: level RequestResponse.
    pub fn made(self, manifest: Value) -> Call {
        let mut made = manifest.clone();
        let uid = uuid_of("object", &manifest["metadata"].to_string());
        made["metadata"]["uid"] = json!(uid);
        made["metadata"]["creationTimestamp"] = json!(super::scene::NOW);
        self.body(manifest).answer(made)
    }

    pub fn query(mut self, query: &str) -> Call {
        query.clone_into(&mut self.query);
        self
    }

    pub fn denied(mut self) -> Call {
        self.code = 403;
        self
    }

    pub fn annotated(mut self, key: &'static str, value: String) -> Call {
        self.annotations.push((key, value));
        self
    }

    fn status(&self) -> Value {
        if self.code != 403 {
            let mut status = json!({"metadata": {}, "code": self.code});
            if self.verb == "delete" {
                status["status"] = json!("Success");
            }
            return status;
        }
        let Object { group, resource, namespace, .. } = &self.object;
        let place =
            namespace.as_ref().map_or("at the cluster scope".to_owned(), |n| format!("in the namespace \"{n}\""));
        let message = format!(
            "{resource} is forbidden: User \"{}\" cannot {} resource \"{resource}\" in API group \"{group}\" {place}",
            self.actor.username(),
            self.verb
        );
        let details = json!({"kind": resource, "group": group});
        json!({"metadata": {}, "status": "Failure", "message": message, "reason": "Forbidden", "details": details, "code": 403})
    }

    fn body_of(&self, stage: &str, audit_id: &str) -> Value {
        let level = match (&self.request, &self.response) {
            (_, Some(_)) => "RequestResponse",
            (Some(_), None) => "Request",
            (None, None) => "Metadata",
        };
        let path = self.path.clone().unwrap_or_else(|| self.object.path(self.verb));
        let uri = if self.query.is_empty() { path } else { format!("{path}?{}", self.query) };
        let denied = self.code == 403;
        let mut annotations = json!({
            "authorization.k8s.io/decision": if denied { "forbid" } else { "allow" },
            "authorization.k8s.io/reason": if denied { "" } else { &self.actor.reason },
        });
        for (key, value) in &self.annotations {
            annotations[key] = json!(value);
        }
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": level, "auditID": audit_id, "stage": stage,
            "requestURI": uri, "verb": self.verb, "user": self.actor.user, "sourceIPs": [self.actor.ip],
            "userAgent": self.actor.agent, "responseStatus": self.status(), "annotations": annotations,
        });
        if self.path.is_none() {
            event["objectRef"] = self.object.reference();
        }
        if let Some(request) = &self.request {
            event["requestObject"] = request.clone();
        }
        if let Some(response) = self.response.as_ref().filter(|_| !denied) {
            event["responseObject"] = response.clone();
        }
        event
    }

    pub fn complete(self, rng: &mut SmallRng) -> Draft {
        let audit_id = uuid(rng);
        let took = rng.random_range(1_200..28_000);
        Draft { took, ..Draft::new(Source::Kubernetes, self.body_of("ResponseComplete", &audit_id)) }
    }

    pub fn stream(self, rng: &mut SmallRng) -> (Draft, Draft) {
        let audit_id = uuid(rng);
        let took = rng.random_range(4_000..60_000);
        let draft = |stage| Draft { took, ..Draft::new(Source::Kubernetes, self.body_of(stage, &audit_id)) };
        (draft("ResponseStarted"), draft("ResponseComplete"))
    }
}

pub(super) fn stamp(body: &mut Value, received: Micros, at: Micros) -> Micros {
    body["requestReceivedTimestamp"] = json!(micro_time(received));
    body["stageTimestamp"] = json!(micro_time(at));
    at
}

/// The kubelet gets the token of a pod on its node. EKS records the request, which names the pod.
pub(super) fn token_request(cluster: &Cluster, pod: &Pod, audience: &str) -> Call {
    let object = Object::core("serviceaccounts").within(&pod.namespace).named(&pod.service_account).sub("token");
    Call::new(&Actor::kubelet(cluster, &pod.node), "create", object)
        .body(json!({
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": pod.service_account, "namespace": pod.namespace},
            "spec": {
                "audiences": [audience], "expirationSeconds": 3607,
                "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod.name, "uid": pod.uid},
            },
            "status": {"token": "", "expirationTimestamp": null},
        }))
        .annotated("authentication.kubernetes.io/issued-credential-id", format!("JTI={}", uuid_of("token", &pod.uid)))
}

/// The heartbeat of a node, with its place in the cloud.
pub(super) fn heartbeat(cluster: &Cluster, node: &Node) -> Call {
    let zone = format!("{}a", cluster.region);
    Call::new(&Actor::kubelet(cluster, node), "patch", Object::core("nodes").named(&node.name).sub("status"))
        .body(json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": super::scene::NOW}]}}))
        .answer(json!({
            "kind": "Node", "apiVersion": "v1",
            "metadata": {"name": node.name, "uid": node.uid, "labels": {"kubernetes.io/hostname": node.name, "topology.kubernetes.io/zone": zone}},
            "spec": {"providerID": format!("aws:///{zone}/{}", node.instance)},
            "status": {"addresses": [{"type": "InternalIP", "address": node.ip}, {"type": "Hostname", "address": node.name}]},
        }))
}

/// What a Deployment, DaemonSet or Job makes its pods from: one container and what is added to the spec.
pub(super) fn template(app: &str, service_account: &str, container: Value, more: Value) -> Value {
    let mut spec = json!({
        "serviceAccountName": service_account, "containers": [container], "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30, "securityContext": {},
    });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    json!({"metadata": {"labels": {"app.kubernetes.io/name": app}}, "spec": spec})
}

/// A pod that a controller makes, as asked for and as made; the server chooses the end of its name.
pub(super) fn controlled(pod: &Pod, owner_kind: &str, owner: &str, template: &Value) -> (Value, Value) {
    let asked = json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "generateName": format!("{owner}-"), "namespace": pod.namespace, "labels": template["metadata"]["labels"],
            "ownerReferences": [{
                "apiVersion": if owner_kind == "Job" { "batch/v1" } else { "apps/v1" }, "kind": owner_kind, "name": owner,
                "uid": uuid_of("owner", &format!("{}/{owner}", pod.namespace)), "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": template["spec"],
    });
    let mut made = asked.clone();
    made["metadata"]["name"] = json!(pod.name);
    made["metadata"]["uid"] = json!(pod.uid);
    made["metadata"]["creationTimestamp"] = json!(super::scene::NOW);
    (asked, made)
}

/// The last five letters of a generated name.
pub(super) fn suffix(of: &str) -> String {
    letters("suffix", of, 5).to_lowercase()
}

/// As Go's `url.QueryEscape`.
fn url(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            b' ' => "+".to_owned(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
