//! What is to be read out of Kubernetes' texts and objects: users, and who may do what (RBAC).
//! https://kubernetes.io/docs/reference/access-authn-authz/rbac/

use std::borrow::Cow;

use crate::value;

/// By the prefixes that Kubernetes reserves for itself:
/// https://kubernetes.io/docs/reference/access-authn-authz/authentication/
pub(crate) fn user_type(name: &str) -> &'static str {
    match name.strip_prefix("system:") {
        None => "User",
        Some(rest) if rest.starts_with("serviceaccount:") => "ServiceAccount",
        Some(rest) if rest.starts_with("node:") => "Node",
        Some(_) => "System",
    }
}

/// The binding that an authorization reason names: of
/// `RBAC: allowed by RoleBinding "read/web" of Role "reader" to User "alice"` it is `RoleBinding/read/web`.
pub(crate) fn binding(reason: &str) -> Option<String> {
    named(reason.split_once("allowed by ")?.1)
}

/// The role that it names: `Role/reader`.
pub(crate) fn role(reason: &str) -> Option<String> {
    named(reason.split_once("allowed by ")?.1.split_once("\" of ")?.1)
}

/// `Kind "name"…` as `Kind/name`.
fn named(text: &str) -> Option<String> {
    let (kind, rest) = text.split_once(" \"")?;
    let (name, _) = rest.split_once('"')?;
    (!kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphabetic())).then(|| format!("{kind}/{name}"))
}

/// An element of a binding's subjects, `Group/system:masters`; a service account by the name that it acts under,
/// `ServiceAccount/system:serviceaccount:ci:builder`.
pub(crate) fn subject(raw: &str) -> Cow<'_, str> {
    let text = |key| value::field(raw, key).map(value::text).unwrap_or_default();
    match &*text("kind") {
        "" => value::text(raw),
        "ServiceAccount" => {
            format!("ServiceAccount/system:serviceaccount:{}:{}", text("namespace"), text("name")).into()
        }
        kind => format!("{kind}/{}", text("name")).into(),
    }
}

/// Rights listed of one object, and their bytes. A role with more ends with [`MORE`]: real ones have some hundred, and
/// one rule of many verbs and resources multiplies them.
const RIGHTS_MAX: usize = 4000;
const RIGHTS_BYTES_MAX: usize = 256 << 10;
/// Last element of a list that was cut.
pub(crate) const MORE: &str = "…";

/// A role's rules as single rights: `get pods`, `create pods/exec`, `* *`, `list deployments.apps`,
/// `get secrets[web-tls]` where it is for named objects only, `get /metrics` for paths.
pub(crate) fn rules(raw: &str) -> Vec<Cow<'_, str>> {
    let mut rights = Rights::default();
    for rule in value::elements(raw) {
        if rights.add(rule).is_none() {
            rights.list.push(MORE.into());
            break;
        }
    }
    rights.list
}

#[derive(Default)]
struct Rights<'r> {
    list: Vec<Cow<'r, str>>,
    bytes: usize,
}

impl Rights<'_> {
    /// `None` when there are too many.
    fn add(&mut self, rule: &str) -> Option<()> {
        let list = |key| value::field(rule, key).map(texts).unwrap_or_default();
        let (verbs, mut groups, resources) = (list("verbs"), list("apiGroups"), list("resources"));
        let (names, paths) = (list("resourceNames").join(","), list("nonResourceURLs"));
        if groups.is_empty() {
            groups.push(String::new());
        }
        for verb in &verbs {
            for resource in &resources {
                for group in &groups {
                    let all = group == "*" && resource == "*";
                    let dot = if group.is_empty() || all { "" } else { "." };
                    let group = if all { "" } else { group };
                    let (open, close) = if names.is_empty() { ("", "") } else { ("[", "]") };
                    self.push(&[verb, " ", resource, dot, group, open, &names, close])?;
                }
            }
            for path in &paths {
                self.push(&[verb, " ", path])?;
            }
        }
        Some(())
    }

    fn push(&mut self, parts: &[&str]) -> Option<()> {
        self.bytes += parts.iter().map(|part| part.len()).sum::<usize>();
        if self.list.len() == RIGHTS_MAX || self.bytes > RIGHTS_BYTES_MAX {
            return None;
        }
        self.list.push(parts.concat().into());
        Some(())
    }
}

fn texts(raw: &str) -> Vec<String> {
    value::elements(raw).map(|element| value::text(element).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_types() {
        let check = |name, expected: &str| assert_eq!(user_type(name), expected, "{name}");
        check("system:serviceaccount:a:b", "ServiceAccount");
        check("system:node:n1", "Node");
        check("system:anonymous", "System");
        check("alice", "User");
    }

    #[test]
    fn reasons_name_bindings_and_roles() {
        let check = |reason, expected: Option<(&str, &str)>| {
            assert_eq!(binding(reason).as_deref(), expected.map(|e| e.0), "{reason}");
            assert_eq!(role(reason).as_deref(), expected.map(|e| e.1), "{reason}");
        };
        check(
            r#"RBAC: allowed by ClusterRoleBinding "cluster-admin" of ClusterRole "cluster-admin" to Group "system:masters""#,
            Some(("ClusterRoleBinding/cluster-admin", "ClusterRole/cluster-admin")),
        );
        check(
            r#"RBAC: allowed by RoleBinding "read/web" of Role "reader" to User "alice""#,
            Some(("RoleBinding/read/web", "Role/reader")),
        );
        check("", None);
        check("RBAC: allowed by nothing", None);
    }

    #[test]
    fn rules_and_subjects_are_spelled_out() {
        let check = |raw, expected: &[&str]| assert_eq!(rules(raw), expected, "{raw}");
        check(r#"[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]"#, &["* *"]);
        check(
            r#"[{"verbs":["get","list"],"apiGroups":[""],"resources":["pods","secrets"]},{"verbs":["get"],"nonResourceURLs":["/metrics"]}]"#,
            &["get pods", "get secrets", "list pods", "list secrets", "get /metrics"],
        );
        check(r#"[{"verbs":["list"],"apiGroups":["apps"],"resources":["deployments"]}]"#, &["list deployments.apps"]);
        check(r#"[{"verbs":["get"],"resources":["secrets"],"resourceNames":["a","b"]}]"#, &["get secrets[a,b]"]);
        check(r#"{"verbs":"get","resources":"pods"}"#, &["get pods"]);
        check("5", &[]);
        let many = format!(r#"[{{"verbs":["a","b"],"resources":[{}]}}]"#, vec!["\"r\""; 3000].join(","));
        assert_eq!((rules(&many).len(), rules(&many).last().unwrap().as_ref()), (RIGHTS_MAX + 1, MORE));
        assert_eq!(subject(r#"{"kind":"Group","name":"system:masters"}"#), "Group/system:masters");
        assert_eq!(
            subject(r#"{"kind":"ServiceAccount","namespace":"ci","name":"b"}"#),
            "ServiceAccount/system:serviceaccount:ci:b"
        );
        assert_eq!(subject("\"x\""), "x");
    }
}
