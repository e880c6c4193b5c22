//! The fixed vocabulary of `transform:` in schema files. Each takes present JSON values and gives a value of its kind,
//! or nothing. What they make of a vendor's formats is in [`crate::cloudtrail`], [`crate::kubernetes`] and
//! [`crate::address`].

use std::borrow::Cow;

use event::ColumnType;

use crate::value::{self, Value};
use crate::{address, cloudtrail, kubernetes, uri};

/// What a transform makes of its inputs. Text that stands in the event as it is meant is borrowed from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Made<'v> {
    Text(Cow<'v, str>),
    Bool(bool),
    Int(i64),
    List(Vec<Cow<'v, str>>),
}

/// Which values a transform sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inputs {
    /// The first of its paths that is present.
    First,
    /// The value of each of so many paths, in order; absent ones too.
    Each(usize),
    /// All that are present, in order.
    Present,
}

/// More paths than this has no transform that sees them all.
pub(crate) const INPUTS_MAX: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transform {
    Lowercase,
    First,
    StatusFromHttpCode,
    StatusFromError,
    KubernetesUserType,
    Address,
    UserAgentFamily,
    Pairs,
    Texts,
    UriPath,
    ExecArgv,
    ExecContainer,
    DryRun,
    RbacBinding,
    RbacRole,
    RbacSubjects,
    RbacRules,
    EventBaseName,
    Principal,
    SessionName,
    InstanceSession,
    ServiceCall,
    Arns,
    ServerIp,
    ServerPort,
}

const SUCCESS: &str = "Success";
const FAILURE: &str = "Failure";

impl Transform {
    pub const ALL: [Transform; 25] = [
        Transform::Lowercase,
        Transform::First,
        Transform::StatusFromHttpCode,
        Transform::StatusFromError,
        Transform::KubernetesUserType,
        Transform::Address,
        Transform::UserAgentFamily,
        Transform::Pairs,
        Transform::Texts,
        Transform::UriPath,
        Transform::ExecArgv,
        Transform::ExecContainer,
        Transform::DryRun,
        Transform::RbacBinding,
        Transform::RbacRole,
        Transform::RbacSubjects,
        Transform::RbacRules,
        Transform::EventBaseName,
        Transform::Principal,
        Transform::SessionName,
        Transform::InstanceSession,
        Transform::ServiceCall,
        Transform::Arns,
        Transform::ServerIp,
        Transform::ServerPort,
    ];

    /// As written in `schemas/`.
    pub fn name(self) -> &'static str {
        match self {
            Transform::Lowercase => "lowercase",
            Transform::First => "first",
            Transform::StatusFromHttpCode => "status_from_http_code",
            Transform::StatusFromError => "status_from_error",
            Transform::KubernetesUserType => "kubernetes_user_type",
            Transform::Address => "address",
            Transform::UserAgentFamily => "user_agent_family",
            Transform::Pairs => "pairs",
            Transform::Texts => "texts",
            Transform::UriPath => "uri_path",
            Transform::ExecArgv => "exec_argv",
            Transform::ExecContainer => "exec_container",
            Transform::DryRun => "dry_run",
            Transform::RbacBinding => "rbac_binding",
            Transform::RbacRole => "rbac_role",
            Transform::RbacSubjects => "rbac_subjects",
            Transform::RbacRules => "rbac_rules",
            Transform::EventBaseName => "event_base_name",
            Transform::Principal => "principal",
            Transform::SessionName => "session_name",
            Transform::InstanceSession => "instance_session",
            Transform::ServiceCall => "service_call",
            Transform::Arns => "arns",
            Transform::ServerIp => "server_ip",
            Transform::ServerPort => "server_port",
        }
    }

    /// The type of the columns that it can fill.
    pub fn kind(self) -> ColumnType {
        match self {
            Transform::DryRun | Transform::InstanceSession | Transform::ServiceCall => ColumnType::Bool,
            Transform::ServerPort => ColumnType::Int64,
            Transform::Pairs
            | Transform::Texts
            | Transform::ExecArgv
            | Transform::RbacSubjects
            | Transform::RbacRules
            | Transform::Arns => ColumnType::StringList,
            _ => ColumnType::String,
        }
    }

    pub fn inputs(self) -> Inputs {
        match self {
            Transform::Principal => Inputs::Each(6),
            Transform::ServiceCall => Inputs::Each(3),
            Transform::InstanceSession | Transform::DryRun | Transform::ServerIp | Transform::ServerPort => {
                Inputs::Each(2)
            }
            Transform::Texts => Inputs::Present,
            _ => Inputs::First,
        }
    }

    /// Finding what it made of a value before costs less than making it again. URIs seldom come twice.
    pub fn is_costly(self) -> bool {
        !matches!(self, Transform::UriPath | Transform::ExecArgv | Transform::ExecContainer)
    }

    /// `values` are as many as [`Transform::inputs`] says, one for [`Inputs::First`].
    pub fn apply<'v>(self, values: &[Option<Value<'v>>]) -> Option<Made<'v>> {
        match (self.inputs(), values) {
            (Inputs::First, [Some(value)]) => self.of_one(*value),
            (Inputs::First, _) => None,
            _ => self.of_many(values),
        }
    }

    fn of_one(self, value: Value<'_>) -> Option<Made<'_>> {
        let (raw, text) = (value.json, || value.text());
        match self {
            Transform::Lowercase => Some(Made::Text(text().to_lowercase().into())),
            Transform::First => value::elements(raw).next().map(value::text).map(Made::Text),
            Transform::StatusFromHttpCode => {
                value::int(raw).map(|code| Made::Text(if code < 400 { SUCCESS.into() } else { FAILURE.into() }))
            }
            Transform::StatusFromError => match text().as_ref() {
                "" | SUCCESS => Some(Made::Text(SUCCESS.into())),
                _ => Some(Made::Text(FAILURE.into())),
            },
            Transform::KubernetesUserType => Some(Made::Text(kubernetes::user_type(&text()).into())),
            Transform::Address => {
                value::elements(raw).next().map(value::text).map(|t| Made::Text(map(t, address::normal)))
            }
            Transform::UserAgentFamily => match text() {
                Cow::Borrowed(text) => cloudtrail::user_agent_family(text).map(Made::Text),
                Cow::Owned(text) => cloudtrail::user_agent_family(&text).map(|t| Made::Text(t.into_owned().into())),
            },
            Transform::Pairs => pairs(raw),
            Transform::UriPath => Some(Made::Text(map(text(), uri::path))),
            Transform::ExecArgv => match text() {
                Cow::Borrowed(text) => uri::exec_argv(text).map(Made::List),
                Cow::Owned(text) => uri::exec_argv(&text).map(|argv| Made::List(owned(argv))),
            },
            Transform::ExecContainer => {
                let text = text();
                uri::exec_argv(&text)?;
                uri::parameter(&text, "container").map(|name| Made::Text(name.into_owned().into()))
            }
            Transform::RbacBinding => kubernetes::binding(&text()).map(|b| Made::Text(b.into())),
            Transform::RbacRole => kubernetes::role(&text()).map(|r| Made::Text(r.into())),
            Transform::RbacSubjects => Some(Made::List(value::elements(raw).map(kubernetes::subject).collect())),
            Transform::RbacRules => Some(Made::List(kubernetes::rules(raw))),
            Transform::EventBaseName => Some(Made::Text(map(text(), |t| cloudtrail::base_name(t).into()))),
            Transform::SessionName => match text() {
                Cow::Borrowed(text) => cloudtrail::session_name(text).map(|t| Made::Text(t.into())),
                Cow::Owned(text) => cloudtrail::session_name(&text).map(|t| Made::Text(t.to_owned().into())),
            },
            Transform::Arns => Some(Made::List(value::elements(raw).filter_map(cloudtrail::arn).collect())),
            _ => None,
        }
    }

    fn of_many<'v>(self, values: &[Option<Value<'v>>]) -> Option<Made<'v>> {
        match (self, values) {
            (Transform::Texts, values) => {
                let texts: Vec<_> = values.iter().flatten().map(|value| value.text()).collect();
                (!texts.is_empty()).then_some(Made::List(texts))
            }
            (Transform::DryRun, [uri, options]) => {
                let asked = uri.map(|uri| uri::is_dry_run(&uri.text()));
                let in_body = options.map(|options| value::elements(options.json).next().is_some());
                (asked.is_some() || in_body.is_some())
                    .then_some(Made::Bool(asked == Some(true) || in_body == Some(true)))
            }
            (Transform::Principal, [kind, issuer, arn, name, account, service]) => {
                cloudtrail::principal([*kind, *issuer, *arn, *name, *account, *service]).map(Made::Text)
            }
            (Transform::InstanceSession, [delivery, arn]) => {
                let by_name = arn.map(|arn| cloudtrail::is_instance_session(&arn.text()));
                (delivery.is_some() || by_name.is_some())
                    .then_some(Made::Bool(delivery.is_some() || by_name == Some(true)))
            }
            (Transform::ServiceCall, [service, address, kind]) => {
                let is = |value: &Option<Value>, test: fn(&str) -> bool| value.is_some_and(|v| test(&v.text()));
                let some = values.iter().any(Option::is_some);
                let by_service = is(service, cloudtrail::is_service)
                    || is(address, cloudtrail::is_service)
                    || is(kind, |kind| kind == "AWSService");
                some.then_some(Made::Bool(by_service))
            }
            (Transform::ServerIp, [address, connection]) => match (address, connection) {
                (Some(address), _) => Some(Made::Text(map(address.text(), address::normal))),
                (None, Some(connection)) => {
                    let connection = connection.text();
                    server(&connection).map(|(ip, _)| Made::Text(address::normal(ip).into_owned().into()))
                }
                (None, None) => None,
            },
            (Transform::ServerPort, [port, connection]) => match (port, connection) {
                (Some(port), _) => value::int(port.json).map(Made::Int),
                (None, Some(connection)) => server(&connection.text()).map(|(_, port)| Made::Int(port)),
                (None, None) => None,
            },
            _ => None,
        }
    }
}

/// Applies what keeps text to text, borrowed where it was.
fn map<'v>(text: Cow<'v, str>, of: impl for<'t> Fn(&'t str) -> Cow<'t, str>) -> Cow<'v, str> {
    match text {
        Cow::Borrowed(text) => of(text),
        Cow::Owned(text) => Cow::Owned(of(&text).into_owned()),
    }
}

fn owned(list: Vec<Cow<'_, str>>) -> Vec<Cow<'static, str>> {
    list.into_iter().map(|text| Cow::Owned(text.into_owned())).collect()
}

/// `key=value` of each field of an object.
fn pairs(raw: &str) -> Option<Made<'_>> {
    let pair = |(key, value): (Cow<str>, &str)| Cow::Owned([&*key, "=", &value::text(value)].concat());
    raw.starts_with('{').then(|| Made::List(value::fields(raw).map(pair).collect()))
}

/// The server's side of Falco's `10.0.0.7:39526->10.100.0.1:443`.
fn server(connection: &str) -> Option<(&str, i64)> {
    let (_, server) = connection.split_once("->")?;
    let (ip, port) = server.rsplit_once(':')?;
    Some((ip, port.parse::<u16>().ok()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<Made<'_>> {
        Some(Made::Text(text.into()))
    }

    fn given(json: &str) -> Value<'_> {
        Value { json, plain: value::is_string(json) && !json.contains('\\') }
    }

    fn list<'t>(texts: &[&'t str]) -> Option<Made<'t>> {
        Some(Made::List(texts.iter().map(|t| Cow::Borrowed(*t)).collect()))
    }

    #[test]
    fn transforms_values() {
        let check = |transform: Transform, raw, expected: Option<Made>| {
            assert_eq!(transform.apply(&[Some(given(raw))]), expected, "{} {raw}", transform.name());
        };
        check(Transform::Lowercase, "\"Warning\"", text("warning"));
        check(Transform::First, r#"["10.0.0.1","10.0.0.2"]"#, text("10.0.0.1"));
        check(Transform::First, "\"10.0.0.1\"", text("10.0.0.1"));
        check(Transform::First, "[]", None);
        check(Transform::StatusFromHttpCode, "101", text("Success"));
        check(Transform::StatusFromHttpCode, "\"403\"", text("Failure"));
        check(Transform::StatusFromHttpCode, "{}", None);
        check(Transform::StatusFromError, "\"AccessDenied\"", text("Failure"));
        check(Transform::StatusFromError, "\"Success\"", text("Success"));
        check(Transform::KubernetesUserType, "\"alice\"", text("User"));
        check(Transform::Address, r#"["::FFFF:10.0.0.1","10.0.0.2"]"#, text("10.0.0.1"));
        check(Transform::Address, "\"AWS Internal\"", text("AWS Internal"));
        check(Transform::Pairs, r#"{"app":"web","n":1}"#, list(&["app=web", "n=1"]));
        check(Transform::Pairs, "\"app\"", None);
        check(Transform::ExecArgv, r#""/x/exec?command=a\u0026command=b""#, list(&["a", "b"]));
        check(Transform::ExecContainer, r#""/x/exec?container=c&command=b""#, text("c"));
        check(Transform::Arns, r#"[{"ARN":"a"},{"type":"t"},{"arn":"b"}]"#, list(&["a", "b"]));
        check(Transform::Texts, "1", list(&["1"]));
    }

    #[test]
    fn transforms_that_see_several_values() {
        let check = |transform: Transform, values: &[Option<&str>], expected: Option<Made>| {
            assert_eq!(transform.inputs(), Inputs::Each(values.len()));
            let values: Vec<_> = values.iter().map(|json| json.map(given)).collect();
            assert_eq!(transform.apply(&values), expected, "{} {values:?}", transform.name());
        };
        check(Transform::DryRun, &[Some(r#""/x?dryRun=All""#), None], Some(Made::Bool(true)));
        check(Transform::DryRun, &[Some("\"/x\""), Some(r#"["All"]"#)], Some(Made::Bool(true)));
        check(Transform::DryRun, &[Some("\"/x\""), None], Some(Made::Bool(false)));
        check(Transform::DryRun, &[None, None], None);
        check(Transform::InstanceSession, &[Some("\"2.0\""), None], Some(Made::Bool(true)));
        check(Transform::InstanceSession, &[None, Some("\"arn:aws:iam::1:user/x\"")], Some(Made::Bool(false)));
        check(Transform::ServiceCall, &[None, Some("\"10.0.0.1\""), Some("\"IAMUser\"")], Some(Made::Bool(false)));
        check(Transform::ServiceCall, &[None, Some("\"config.amazonaws.com\""), None], Some(Made::Bool(true)));
        check(Transform::ServiceCall, &[None, None, None], None);
        let connection = Some("\"10.0.0.7:39526->10.100.0.1:443\"");
        check(Transform::ServerIp, &[None, connection], text("10.100.0.1"));
        check(Transform::ServerIp, &[Some("\"1.2.3.4\""), connection], text("1.2.3.4"));
        check(Transform::ServerPort, &[None, connection], Some(Made::Int(443)));
        check(Transform::ServerPort, &[None, Some("\"/etc/shadow\"")], None);
    }

    #[test]
    fn names_are_told_apart() {
        for transform in Transform::ALL {
            assert_eq!(Transform::ALL.iter().filter(|t| t.name() == transform.name()).count(), 1);
            assert!(!matches!(transform.inputs(), Inputs::Each(n) if n > INPUTS_MAX));
        }
    }
}
