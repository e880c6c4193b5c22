//! What is to be read out of CloudTrail's texts: names, sessions, identities.
//! https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html

use std::borrow::Cow;

use crate::value::{self, Value};

/// An event name without the API date and version that some services append: `CreateDistribution2020_05_31`,
/// `AddPermission20150331v2`.
pub(crate) fn base_name(name: &str) -> &str {
    let digits = |text: &str, pattern: &str| {
        text.len() == pattern.len()
            && text.bytes().zip(pattern.bytes()).all(|(b, p)| if p == b'9' { b.is_ascii_digit() } else { b == p })
    };
    let cut = |length: usize| name.len().checked_sub(length).filter(|at| *at > 0 && name.is_char_boundary(*at));
    if let Some(at) = cut(10).filter(|at| digits(&name[*at..], "9999_99_99")) {
        return &name[..at];
    }
    let unversioned = name.trim_end_matches(|c: char| c.is_ascii_digit()).strip_suffix('v');
    let dated = unversioned.filter(|n| n.len() + 1 < name.len()).unwrap_or(name);
    let at = dated.len().checked_sub(8).filter(|at| *at > 0 && dated.is_char_boundary(*at));
    match at.filter(|at| digits(&dated[*at..], "99999999")) {
        Some(at) => &name[..at],
        None => name,
    }
}

/// Who is responsible, across sessions: the role of a session, the service account of a web identity, the account of
/// root, else the ARN, the name, the account or the service.
pub(crate) fn principal<'v>(
    [kind, issuer, arn, name, account, service]: [Option<Value<'v>>; 6],
) -> Option<Cow<'v, str>> {
    let kind = kind.map(Value::text);
    let chosen = match kind.as_deref() {
        Some("AssumedRole") => issuer.or(arn),
        Some("WebIdentityUser" | "SAMLUser") => name.or(arn),
        Some("Root") => account.or(arn),
        _ => arn,
    };
    chosen.or(name).or(service).or(account).map(Value::text)
}

/// The session of `arn:aws:sts::123456789012:assumed-role/Admin/alice`.
pub(crate) fn session_name(arn: &str) -> Option<&str> {
    const ROLE: &str = ":assumed-role/";
    let role = &arn[memchr::memmem::find(arn.as_bytes(), ROLE.as_bytes())? + ROLE.len()..];
    role.rsplit_once('/').map(|(_, session)| session)
}

/// Sessions of an instance's role bear the instance's id.
pub(crate) fn is_instance_session(arn: &str) -> bool {
    let id = session_name(arn).and_then(|session| session.strip_prefix("i-"));
    id.is_some_and(|id| matches!(id.len(), 8 | 17) && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

pub(crate) fn is_service(text: &str) -> bool {
    text.ends_with(".amazonaws.com") || text == "AWS Internal"
}

/// ARN of an element of `resources`.
pub(crate) fn arn(resource: &str) -> Option<Cow<'_, str>> {
    if value::is_string(resource) {
        return Some(value::text(resource));
    }
    value::field(resource, "ARN").or_else(|| value::field(resource, "arn")).map(value::text)
}

/// Products that only say through whom another one was bought or built.
const WRAPPERS: [&str; 2] = ["apn", "hashicorp"];

/// The client as one word in lower case: `kubectl`, `aws-cli`, `terraform`. The service's name where one called.
pub(crate) fn user_agent_family(text: &str) -> Option<Cow<'_, str>> {
    let mut rest = text.trim_start_matches(['[', ' ', '"']);
    let mut families = std::iter::from_fn(|| {
        rest = rest.trim_start_matches([' ', ',']);
        let end = memchr::memchr2(b' ', b',', rest.as_bytes()).unwrap_or(rest.len());
        let product = &rest[..end];
        rest = &rest[end..];
        (!product.is_empty()).then(|| family(product))
    });
    let first = families.next().filter(|family| !family.is_empty())?;
    if !WRAPPERS.contains(&&*first) {
        return Some(first);
    }
    Some(families.find(|family| !family.is_empty() && !WRAPPERS.contains(&&**family)).unwrap_or(first))
}

/// The name of a product without its version.
fn family(product: &str) -> Cow<'_, str> {
    let end = memchr::memchr3(b'/', b'(', b';', product.as_bytes()).unwrap_or(product.len());
    let name = product[..end].trim_matches(['[', ']', '"']);
    match name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        true => Cow::Borrowed(name),
        false => Cow::Owned(name.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_dates_and_versions() {
        let check = |name, expected: &str| assert_eq!(base_name(name), expected, "{name}");
        check("GetObject", "GetObject");
        check("CreateDistribution2020_05_31", "CreateDistribution");
        check("AddPermission20150331v2", "AddPermission");
        check("GetFunction20150331", "GetFunction");
        check("ListObjectsV2", "ListObjectsV2");
        check("Describev2", "Describev2");
        check("20150331", "20150331");
        check("2020_05_31", "2020_05_31");
        check("é5_31", "é5_31");
        check("", "");
    }

    #[test]
    fn sessions_and_principals() {
        let arn = "arn:aws:sts::1:assumed-role/path/Admin/alice";
        assert_eq!(session_name(arn), Some("alice"));
        assert_eq!(session_name("arn:aws:iam::1:user/alice"), None);
        assert!(is_instance_session("arn:aws:sts::1:assumed-role/r/i-0123456789abcdef0"));
        assert!(!is_instance_session("arn:aws:sts::1:assumed-role/r/i-am-not") && !is_instance_session(arn));
        let check = |values: [&str; 6], expected: Option<&str>| {
            let quoted = values.map(|v| format!("\"{v}\""));
            let mut given = [None; 6];
            for (given, (value, quoted)) in given.iter_mut().zip(values.iter().zip(&quoted)) {
                *given = (!value.is_empty()).then_some(Value { json: quoted, plain: true });
            }
            assert_eq!(principal(given).as_deref(), expected, "{values:?}");
        };
        check(["AssumedRole", "role", "arn", "", "1", ""], Some("role"));
        check(["AssumedRole", "", "arn", "", "1", ""], Some("arn"));
        check(["WebIdentityUser", "", "", "system:serviceaccount:a:b", "", ""], Some("system:serviceaccount:a:b"));
        check(["Root", "", "arn:root", "", "1", ""], Some("1"));
        check(["IAMUser", "", "arn:user", "alice", "1", ""], Some("arn:user"));
        check(["AWSService", "", "", "", "", "ec2.amazonaws.com"], Some("ec2.amazonaws.com"));
        check(["AWSAccount", "", "", "", "1", ""], Some("1"));
        check(["", "", "", "", "", ""], None);
    }

    #[test]
    fn clients_by_family() {
        let check = |text, expected: Option<&str>| assert_eq!(user_agent_family(text).as_deref(), expected, "{text}");
        check("kubectl/v1.31.0 (linux/amd64) kubernetes/abc", Some("kubectl"));
        check("Boto3/1.26 Python/3.9", Some("boto3"));
        check("[S3Console/0.4, aws-internal/3 aws-sdk-java/1.12]", Some("s3console"));
        check("[aws-cli/2.9]", Some("aws-cli"));
        check("APN/1.0 HashiCorp/1.0 Terraform/1.5.7 (+https://www.terraform.io)", Some("terraform"));
        check("APN/1.0", Some("apn"));
        check("cloudformation.amazonaws.com", Some("cloudformation.amazonaws.com"));
        check("Mozilla/5.0 (X11)", Some("mozilla"));
        check("", None);
        check("(x)", None);
    }
}
