//! The fixed vocabulary of `transform:` in schema files. Each takes a present JSON value and gives text or nothing.

use std::borrow::Cow;

use crate::value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transform {
    Lowercase,
    First,
    StatusFromHttpCode,
    StatusFromError,
    KubernetesUserType,
}

const SUCCESS: &str = "Success";
const FAILURE: &str = "Failure";

impl Transform {
    pub const ALL: [Transform; 5] = [
        Transform::Lowercase,
        Transform::First,
        Transform::StatusFromHttpCode,
        Transform::StatusFromError,
        Transform::KubernetesUserType,
    ];

    /// As written in `schemas/`.
    pub fn name(self) -> &'static str {
        match self {
            Transform::Lowercase => "lowercase",
            Transform::First => "first",
            Transform::StatusFromHttpCode => "status_from_http_code",
            Transform::StatusFromError => "status_from_error",
            Transform::KubernetesUserType => "kubernetes_user_type",
        }
    }

    pub fn apply(self, raw: &str) -> Option<Cow<'_, str>> {
        match self {
            Transform::Lowercase => Some(value::text(raw).to_lowercase().into()),
            Transform::First => value::elements(raw).next().map(value::text),
            Transform::StatusFromHttpCode => {
                value::int(raw).map(|code| if code < 400 { SUCCESS.into() } else { FAILURE.into() })
            }
            Transform::StatusFromError => match value::text(raw).as_ref() {
                "" | SUCCESS => Some(SUCCESS.into()),
                _ => Some(FAILURE.into()),
            },
            Transform::KubernetesUserType => Some(kubernetes_user_type(&value::text(raw)).into()),
        }
    }
}

/// By the prefixes that Kubernetes reserves for itself:
/// https://kubernetes.io/docs/reference/access-authn-authz/authentication/
fn kubernetes_user_type(name: &str) -> &'static str {
    match name.strip_prefix("system:") {
        None => "User",
        Some(rest) if rest.starts_with("serviceaccount:") => "ServiceAccount",
        Some(rest) if rest.starts_with("node:") => "Node",
        Some(_) => "System",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transforms_values() {
        let check = |transform: Transform, raw, expected: Option<&str>| {
            assert_eq!(transform.apply(raw).as_deref(), expected, "{} {raw}", transform.name());
        };
        check(Transform::Lowercase, "\"Warning\"", Some("warning"));
        check(Transform::First, r#"["10.0.0.1","10.0.0.2"]"#, Some("10.0.0.1"));
        check(Transform::First, "\"10.0.0.1\"", Some("10.0.0.1"));
        check(Transform::First, "[]", None);
        check(Transform::StatusFromHttpCode, "101", Some("Success"));
        check(Transform::StatusFromHttpCode, "\"403\"", Some("Failure"));
        check(Transform::StatusFromHttpCode, "{}", None);
        check(Transform::StatusFromError, "\"AccessDenied\"", Some("Failure"));
        check(Transform::StatusFromError, "\"Success\"", Some("Success"));
        check(Transform::KubernetesUserType, "\"system:serviceaccount:a:b\"", Some("ServiceAccount"));
        check(Transform::KubernetesUserType, "\"system:node:n1\"", Some("Node"));
        check(Transform::KubernetesUserType, "\"system:anonymous\"", Some("System"));
        check(Transform::KubernetesUserType, "\"alice\"", Some("User"));
    }
}
