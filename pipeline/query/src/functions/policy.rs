//! Functions on AWS policy documents: what one gives away, and which protections a new version has lost. One or
//! many is allowed everywhere, as AWS allows it; names and actions are compared without regard to case. What is
//! no policy has no findings.

use std::collections::{BTreeSet, HashSet};

use arrow::array::ArrayRef;
use datafusion::error::Result;
use serde_json::{Map, Value};

use super::address::Cidr;
use super::text::percent_decoded;
use super::{Args, Cell, Function, Takes, distinct};
use crate::glob::matches;

type Codes = Vec<String>;

/// Bytes of a document. AWS's own limit is 32 KB (key policies); encoded it can be three times that.
const DOCUMENT_BYTES_MAX: usize = 128 << 10;

/// Statements of a document, and values in one list of a statement, that are looked at: more do not fit in 32 KB.
const STATEMENTS_MAX: usize = 300;
const ITEMS_MAX: usize = 2_000;

/// Bytes of the actions of two documents, multiplied: what comparing them can cost. Two of 32 KB still pass.
const COMPARED_BYTES_MAX: usize = 1 << 30;

/// Codes of a document.
const CODES_MAX: usize = 200;

/// With one of these on any user, role or group, anybody can be made administrator.
const IAM_WRITES: [&str; 13] = [
    "iam:putuserpolicy",
    "iam:putrolepolicy",
    "iam:putgrouppolicy",
    "iam:attachuserpolicy",
    "iam:attachrolepolicy",
    "iam:attachgrouppolicy",
    "iam:createpolicyversion",
    "iam:setdefaultpolicyversion",
    "iam:addusertogroup",
    "iam:createaccesskey",
    "iam:createloginprofile",
    "iam:updateloginprofile",
    "iam:updateassumerolepolicy",
];

/// Condition keys whose loss weakens a statement. `/` stands for all keys below.
const GUARDS: [&str; 13] = [
    "aws:multifactorauthpresent",
    "aws:multifactorauthage",
    "aws:sourceip",
    "aws:vpcsourceip",
    "aws:sourcevpce",
    "aws:sourcevpc",
    "aws:principalorgid",
    "aws:resourcetag/",
    "aws:requesttag/",
    "aws:principaltag/",
    "s3:x-amz-server-side-encryption",
    "aws:securetransport",
    "sts:externalid",
];

pub(super) fn functions() -> Vec<Function> {
    vec![
        Function::new("iam_policy_findings", &[Takes::Text], Codes::data_type(), iam_policy_findings).more(Takes::List),
        Function::new("iam_policy_losses", &[Takes::Text, Takes::Text], Codes::data_type(), iam_policy_losses),
    ]
}

/// `iam_policy_findings(document, own accounts …)`.
fn iam_policy_findings(args: &Args) -> Result<ArrayRef> {
    let documents = args.texts(0)?;
    let mut own: Vec<Vec<String>> = vec![Vec::new(); args.rows];
    for place in 1..args.values.len() {
        for (own, list) in own.iter_mut().zip(args.lists(place)?) {
            own.extend(list);
        }
    }
    let keys = documents.iter().zip(own.iter().map(Vec::as_slice));
    let (cells, rows) = distinct(keys, |(text, own)| text.map_or_else(Codes::new, |text| findings(text, own)));
    Ok(Codes::array(&cells, &rows))
}

/// `iam_policy_losses(before, after)`.
fn iam_policy_losses(args: &Args) -> Result<ArrayRef> {
    let (before, after) = (args.texts(0)?, args.texts(1)?);
    let (cells, rows) = distinct(before.iter().zip(after.iter()), |pair| match pair {
        (Some(before), Some(after)) => losses(before, after),
        _ => Codes::new(),
    });
    Ok(Codes::array(&cells, &rows))
}

/// What the document allows to whom, as codes in order. Accounts may be separated by commas.
fn findings(text: &str, own: &[String]) -> Codes {
    let own: HashSet<&str> = own.iter().flat_map(|list| list.split(',')).map(str::trim).collect();
    let mut codes = BTreeSet::new();
    for statement in statements(text).iter().filter(|s| s.allows) {
        let mut found = BTreeSet::new();
        match &statement.principals {
            Some(principals) => shared_with(statement, principals, &own, &mut found),
            None => granted_to_holder(statement, &mut found),
        }
        if !found.is_empty() && statement.conditions.is_empty() {
            found.insert("no-condition".to_owned());
        }
        codes.append(&mut found);
    }
    codes.into_iter().take(CODES_MAX).collect()
}

/// A statement of a policy, in lower case where AWS does not care.
struct Statement {
    allows: bool,
    /// `None` in the policy of a user, role or group. The kind is `*` for everybody.
    principals: Option<Vec<(String, String)>>,
    actions: Vec<String>,
    not_actions: Option<Vec<String>>,
    resources: Vec<String>,
    has_resource: bool,
    conditions: Vec<Condition>,
}

/// One key of a condition.
struct Condition {
    /// Without `ForAnyValue:`.
    operator: String,
    key: String,
    values: Vec<String>,
}

fn statements(text: &str) -> Vec<Statement> {
    let Some(Value::Object(document)) = document(text) else { return Vec::new() };
    let found = get(&document, "statement").map(items).unwrap_or_default();
    found.into_iter().take(STATEMENTS_MAX).filter_map(Value::as_object).map(statement).collect()
}

/// The JSON of a document: as it is, URL-encoded as the IAM API has it, or as a JSON text.
fn document(text: &str) -> Option<Value> {
    if text.len() > DOCUMENT_BYTES_MAX {
        return None;
    }
    let text = text.trim();
    let value: Value = match text.starts_with('%') {
        true => serde_json::from_str(&percent_decoded(text)).ok()?,
        false => serde_json::from_str(text).ok()?,
    };
    match value {
        Value::String(inner) => serde_json::from_str(&inner).ok(),
        value => Some(value),
    }
}

fn statement(fields: &Map<String, Value>) -> Statement {
    let lower = |name: &str| get(fields, name).map(|v| texts(v).iter().map(|t| t.to_lowercase()).collect::<Vec<_>>());
    let everybody_but = get(fields, "notprincipal").map(|_| vec![("*".to_owned(), "*".to_owned())]);
    let all_but = get(fields, "notresource").map(|_| vec!["*".to_owned()]);
    Statement {
        allows: get(fields, "effect").and_then(Value::as_str).is_some_and(|e| e.eq_ignore_ascii_case("allow")),
        principals: get(fields, "principal").map(principals).or(everybody_but),
        actions: lower("action").unwrap_or_default(),
        not_actions: lower("notaction"),
        has_resource: get(fields, "resource").is_some() || all_but.is_some(),
        resources: get(fields, "resource").map(texts).or(all_but).unwrap_or_default(),
        conditions: get(fields, "condition").map(conditions).unwrap_or_default(),
    }
}

fn principals(value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Object(kinds) => {
            let of_kind = |(kind, who): (&String, &Value)| -> Vec<(String, String)> {
                texts(who).into_iter().map(|who| (kind.to_lowercase(), who)).collect()
            };
            kinds.iter().flat_map(of_kind).take(ITEMS_MAX).collect()
        }
        other => texts(other).into_iter().map(|who| ("aws".to_owned(), who)).collect(),
    }
}

fn conditions(value: &Value) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for (operator, keys) in value.as_object().into_iter().flatten() {
        let operator = operator.to_lowercase();
        let operator = operator.strip_prefix("foranyvalue:").unwrap_or(&operator);
        for (key, values) in keys.as_object().into_iter().flatten() {
            conditions.push(Condition {
                operator: operator.to_owned(),
                key: key.to_lowercase(),
                values: texts(values),
            });
        }
    }
    conditions.truncate(ITEMS_MAX);
    conditions
}

fn get<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().take(ITEMS_MAX).collect(),
        one => vec![one],
    }
}

fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    };
    items(value).into_iter().filter_map(text).collect()
}

/// Codes of an Allow that names principals: the policy of a resource, or the trust policy of a role.
fn shared_with(
    statement: &Statement,
    principals: &[(String, String)],
    own: &HashSet<&str>,
    codes: &mut BTreeSet<String>,
) {
    for (kind, who) in principals {
        match kind.as_str() {
            "federated" => federated(statement, who, codes),
            "service" => {}
            "canonicaluser" => drop(codes.insert("canonical-user".to_owned())),
            _ => match account(who) {
                Some(account) if account.contains('*') => everybody(statement, own, codes),
                Some(account) if own.contains(account) => {}
                Some(account) => {
                    codes.insert(format!("external:{account}"));
                    if !statement.has_resource && !statement.has_external_id() {
                        codes.insert(format!("no-external-id:{account}"));
                    }
                }
                None => {}
            },
        }
    }
}

/// `*`, the twelve digits, or the account of an ARN. An id such as `AROA…` is a principal that no longer exists.
fn account(principal: &str) -> Option<&str> {
    let account = match principal.starts_with("arn:") {
        true => principal.split(':').nth(4)?,
        false => principal,
    };
    let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    (digits || account.contains('*')).then_some(account)
}

/// Everybody is public unless a condition says who or from where, in the sense of S3's "meaning of public".
fn everybody(statement: &Statement, own: &HashSet<&str>, codes: &mut BTreeSet<String>) {
    let limits: Vec<&Condition> = statement.conditions.iter().filter(|c| c.limits_access()).collect();
    if limits.is_empty() {
        codes.insert("public".to_owned());
        return;
    }
    for limit in &limits {
        if limit.key == "aws:principalorgid" || limit.key == "aws:sourceorgid" {
            codes.extend(limit.values.iter().map(|org| format!("org:{org}")));
        }
    }
    let accounts =
        |c: &Condition| -> Vec<String> { c.values.iter().filter_map(|v| account(v)).map(str::to_owned).collect() };
    let named: Vec<Vec<String>> = limits.iter().map(|c| accounts(c)).filter(|a| !a.is_empty()).collect();
    // All conditions must hold: one that only own accounts meet is enough.
    if !named.iter().any(|accounts| accounts.iter().all(|a| own.contains(a.as_str()))) {
        let foreign = named.iter().flatten().filter(|a| !own.contains(a.as_str()));
        codes.extend(foreign.map(|account| format!("external:{account}")));
    }
}

impl Condition {
    /// The operator asks for a value: with IfExists, ForAllValues or a negation, a request without the key passes.
    fn is_positive(&self) -> bool {
        const POSITIVE: [&str; 6] =
            ["stringequals", "stringequalsignorecase", "stringlike", "arnequals", "arnlike", "ipaddress"];
        POSITIVE.contains(&self.operator.as_str())
    }

    /// A token always has its claims, so that neither IfExists nor ForAllValues lets one pass.
    fn asks_for_claim(&self) -> bool {
        let operator = self.operator.trim_start_matches("forallvalues:").trim_end_matches("ifexists");
        ["stringequals", "stringequalsignorecase", "stringlike"].contains(&operator)
    }

    fn has_wildcards(&self) -> bool {
        ["like", "arnequals"].iter().any(|kind| self.operator.contains(kind))
    }

    fn limits_access(&self) -> bool {
        let narrow: fn(&Condition, &str) -> bool = match self.key.as_str() {
            "aws:sourceip" | "aws:vpcsourceip" => |_, block| is_narrow_block(block),
            "aws:sourcearn" | "aws:principalarn" | "s3:dataaccesspointarn" => |_, arn| is_narrow_arn(arn),
            "aws:principalorgpaths" | "aws:sourceorgpaths" | "aws:userid" => |_, text| !text.starts_with(['*', '?']),
            "aws:principalorgid"
            | "aws:sourceorgid"
            | "aws:principalaccount"
            | "aws:sourceaccount"
            | "aws:sourceowner"
            | "aws:sourcevpc"
            | "aws:sourcevpce"
            | "kms:calleraccount"
            | "s3:dataaccesspointaccount" => |c, text| !c.has_wildcards() || !text.contains(['*', '?']),
            _ => return false,
        };
        self.is_positive() && !self.values.is_empty() && self.values.iter().all(|value| narrow(self, value))
    }
}

/// S3 calls wider ranges public.
fn is_narrow_block(text: &str) -> bool {
    Cidr::parse(text).is_some_and(|block| block.len >= if block.is_v4() { 8 } else { 32 })
}

/// The account is fixed, or, where an ARN has none, the beginning of the resource.
fn is_narrow_arn(arn: &str) -> bool {
    let mut parts = arn.splitn(6, ':').skip(4);
    match (parts.next(), parts.next()) {
        (Some(""), Some(resource)) => !resource.starts_with(['*', '?']),
        (Some(account), Some(_)) => !account.contains(['*', '?']),
        _ => false,
    }
}

/// A trust in an identity provider: which, and whether it says for whom.
fn federated(statement: &Statement, provider: &str, codes: &mut BTreeSet<String>) {
    if provider == "*" {
        codes.insert("public".to_owned());
        return;
    }
    let is_saml = provider.contains(":saml-provider/");
    let name = ["oidc-provider/", "saml-provider/"].iter().find_map(|kind| provider.split_once(kind));
    let name = name.map_or(provider, |(_, name)| name);
    codes.insert(format!("federated:{name}"));
    if is_saml {
        return;
    }
    // Cognito tells its pools by audience, all others tell their users by subject.
    let (claim, missing) = match name {
        "cognito-identity.amazonaws.com" => (":aud", "missing-aud"),
        _ => (":sub", "missing-sub"),
    };
    let tests: Vec<&Condition> =
        statement.conditions.iter().filter(|c| c.key.ends_with(claim) && c.asks_for_claim()).collect();
    if tests.is_empty() {
        codes.insert(missing.to_owned());
    }
    let is_wild = |c: &&Condition| c.has_wildcards() && c.values.iter().any(|v| is_wildcard_subject(v));
    if !tests.is_empty() && tests.iter().all(is_wild) {
        codes.insert("wildcard-sub".to_owned());
    }
}

/// The subject leaves open whose it is: the organisation before the first slash (`repo:*/x`), the namespace of a
/// service account, or everything.
fn is_wildcard_subject(subject: &str) -> bool {
    let owner = match subject.strip_prefix("system:serviceaccount:") {
        Some(account) => account.split(':').next(),
        None => subject.split('/').next(),
    };
    owner.is_some_and(|owner| owner.contains(['*', '?']))
}

impl Statement {
    fn has_external_id(&self) -> bool {
        let is_id = |c: &Condition| c.key == "sts:externalid" && c.is_positive();
        self.conditions.iter().any(|c| is_id(c) && c.values.iter().all(|v| !v.starts_with('*')))
    }

    fn allows_action(&self, action: &str) -> bool {
        match &self.not_actions {
            Some(not) => !not.iter().any(|pattern| matches(pattern, action)),
            None => self.actions.iter().any(|pattern| matches(pattern, action)),
        }
    }

    fn allows_all_actions(&self) -> bool {
        self.actions.iter().any(|a| a == "*" || a == "*:*")
    }
}

/// `*`, or an ARN that fixes nothing.
fn is_everything(resource: &str) -> bool {
    resource == "*" || (resource.starts_with("arn:") && resource.split(':').skip(2).all(|part| part == "*"))
}

/// All resources of a service: `arn:aws:s3:::*`, `arn:aws:iam::*:role/*`.
fn is_whole_service(resource: &str) -> bool {
    let mut parts = resource.splitn(6, ':').skip(2);
    let (service, last) = (parts.next(), parts.nth(2));
    last == Some("*")
        || (service == Some("iam") && last.is_some_and(|l| l.ends_with("/*") && l.matches('/').count() == 1))
}

/// Codes of an Allow in the policy of a user, role or group.
fn granted_to_holder(statement: &Statement, codes: &mut BTreeSet<String>) {
    let everything = statement.resources.iter().any(|r| is_everything(r));
    if statement.allows_all_actions() {
        codes.insert(if everything { "star-admin" } else { "star-action" }.to_owned());
        return;
    }
    if !everything && !statement.resources.iter().any(|r| is_whole_service(r)) {
        return;
    }
    if statement.not_actions.is_some() {
        codes.insert("star-not-action".to_owned());
    }
    let services = statement.actions.iter().filter_map(|action| action.strip_suffix(":*"));
    codes.extend(services.map(|service| format!("star-resource:{service}")));
    if statement.allows_action("iam:passrole") {
        codes.insert("pass-role".to_owned());
    }
    if statement.allows_action("sts:assumerole") {
        codes.insert("assume-any".to_owned());
    }
    if IAM_WRITES.iter().any(|action| statement.allows_action(action)) {
        codes.insert("iam-write".to_owned());
    }
}

/// What protected the old version and no longer protects the new one. Compared per action that both allow, so
/// that a statement which is gone altogether is no loss, and one beside a guarded statement is.
fn losses(before: &str, after: &str) -> Codes {
    let (before, after) = (statements(before), statements(after));
    let bytes = |all: &[Statement]| all.iter().flat_map(|s| &s.actions).map(String::len).sum::<usize>();
    if bytes(&before).saturating_mul(bytes(&after)) > COMPARED_BYTES_MAX {
        return vec!["not-compared".to_owned()];
    }
    let mut codes = BTreeSet::new();
    if before.is_empty() || after.is_empty() {
        return Codes::new();
    }
    let denied = |all: &[Statement]| -> Vec<String> {
        all.iter().filter(|s| !s.allows).flat_map(|s| s.actions.clone()).collect()
    };
    let still = denied(&after);
    for action in denied(&before) {
        if !still.iter().any(|pattern| matches(pattern, &action)) {
            codes.insert(format!("lost-deny:{action}"));
        }
    }
    for new in after.iter().filter(|s| s.allows) {
        let old: Vec<&Statement> = before.iter().filter(|s| s.allows && s.overlaps(new)).collect();
        let Some(first) = old.first() else { continue };
        let of_all = first.guards().into_iter().filter(|key| old.iter().all(|s| s.guards().contains(key)));
        let lost = of_all.filter(|key| !new.guards().contains(key));
        codes.extend(lost.map(|key| format!("lost-condition:{key}")));
        let known: Vec<Cidr> = old.iter().flat_map(|s| s.networks()).collect();
        if old.iter().all(|s| !s.networks().is_empty()) {
            let wider = new.networks().into_iter().filter(|block| !known.iter().any(|k| k.covers(block)));
            codes.extend(wider.map(|block| format!("wider-network:{block}")));
        }
    }
    codes.into_iter().take(CODES_MAX).collect()
}

impl Statement {
    fn overlaps(&self, other: &Statement) -> bool {
        let either = |a: &String, b: &String| matches(a, b) || matches(b, a);
        match (&self.not_actions, &other.not_actions) {
            (None, None) => self.actions.iter().any(|a| other.actions.iter().any(|b| either(a, b))),
            // All actions but some overlap with nearly everything.
            _ => true,
        }
    }

    fn guards(&self) -> BTreeSet<&str> {
        let is_guard = |key: &str| {
            let known = GUARDS.iter().any(|g| if g.ends_with('/') { key.starts_with(g) } else { key == *g });
            known || key.ends_with(":sub") || key.ends_with(":aud")
        };
        self.conditions.iter().map(|c| c.key.as_str()).filter(|key| is_guard(key)).collect()
    }

    fn networks(&self) -> Vec<Cidr> {
        let is_network = |c: &&Condition| c.operator == "ipaddress" && c.key.ends_with("sourceip");
        self.conditions.iter().filter(is_network).flat_map(|c| c.values.iter().filter_map(|v| Cidr::parse(v))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [&str; 1] = ["111111111111, 222222222222"];

    fn check(document: &str, expected: &[&str]) {
        assert_eq!(findings(document, &OWN.map(str::to_owned)), expected, "{document}");
    }

    fn allow(rest: &str) -> String {
        format!(r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow",{rest}}}]}}"#)
    }

    #[test]
    fn trust_policies_tell_whom_they_trust() {
        let trust = |rest: &str| allow(&format!(r#""Action":"sts:AssumeRole",{rest}"#));
        check(&trust(r#""Principal":{"AWS":"arn:aws:iam::111111111111:root"}"#), &[]);
        check(&trust(r#""Principal":{"Service":["ec2.amazonaws.com"]}"#), &[]);
        check(&trust(r#""Principal":"*""#), &["no-condition", "public"]);
        check(
            &trust(r#""Principal":{"AWS":["*"]},"Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}"#),
            &["public"],
        );
        check(&trust(r#""NotPrincipal":{"AWS":"111111111111"}"#), &["no-condition", "public"]);
        check(
            &trust(r#""Principal":{"AWS":["999999999999","222222222222"]}"#),
            &["external:999999999999", "no-condition", "no-external-id:999999999999"],
        );
        let vendor = r#""Principal":{"AWS":"arn:aws:iam::999999999999:role/x"},
            "Condition":{"StringEquals":{"sts:ExternalId":"7f3a"}}"#;
        check(&trust(vendor), &["external:999999999999"]);
        check(&trust(r#""Principal":{"AWS":"AROAEXAMPLEEXAMPLE"}"#), &[]);
        check(&trust(r#""Principal":{"CanonicalUser":"79a5"}"#), &["canonical-user", "no-condition"]);
        let org = r#""Principal":"*","Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-abc"}}"#;
        check(&trust(org), &["org:o-abc"]);
        check(&trust(&org.replace("StringEquals", "StringEqualsIfExists")), &["public"]);
        check(&trust(&org.replace("StringEquals", "ForAllValues:StringEquals")), &["public"]);
        check(&trust(&org.replace("StringEquals", "StringNotEquals")), &["public"]);
        check(&trust(&org.replace("StringEquals", "StringLike").replace("o-abc", "*")), &["public"]);
    }

    #[test]
    fn federated_trusts_need_a_subject() {
        let trust = |condition: &str| {
            allow(&format!(
                r#""Action":"sts:AssumeRoleWithWebIdentity","Condition":{condition},"Principal":{{"Federated":
                "arn:aws:iam::111111111111:oidc-provider/token.actions.githubusercontent.com"}}"#
            ))
        };
        let provider = "federated:token.actions.githubusercontent.com";
        let sub = |operator: &str, value: &str| {
            trust(&format!(r#"{{"{operator}":{{"token.actions.githubusercontent.com:sub":{value}}}}}"#))
        };
        check(&sub("StringEquals", r#""repo:org/x:ref:refs/heads/main""#), &[provider]);
        check(&sub("StringLike", r#"["repo:org/*"]"#), &[provider]);
        check(&sub("ForAllValues:StringLike", r#""repo:org/x:*""#), &[provider]);
        check(&sub("StringLike", r#""repo:*""#), &[provider, "wildcard-sub"]);
        check(&sub("StringLike", r#"["repo:org/x","repo:o*/x"]"#), &[provider, "wildcard-sub"]);
        check(&sub("StringNotLike", r#""repo:org/*""#), &[provider, "missing-sub"]);
        check(
            &trust(r#"{"StringEquals":{"token.actions.githubusercontent.com:aud":"sts.amazonaws.com"}}"#),
            &[provider, "missing-sub"],
        );
        check(&sub("StringLike", r#""system:serviceaccount:prod:*""#), &[provider]);
        check(&sub("StringLike", r#""system:serviceaccount:*:app""#), &[provider, "wildcard-sub"]);
        let saml = r#""Action":"sts:AssumeRoleWithSAML",
            "Principal":{"Federated":"arn:aws:iam::111111111111:saml-provider/corp"}"#;
        check(&allow(saml), &["federated:corp", "no-condition"]);
        let cognito = r#""Action":"sts:AssumeRoleWithWebIdentity",
            "Principal":{"Federated":"cognito-identity.amazonaws.com"}"#;
        check(&allow(cognito), &["federated:cognito-identity.amazonaws.com", "missing-aud", "no-condition"]);
    }

    #[test]
    fn resource_policies_tell_who_may_come() {
        let bucket = |condition: &str| {
            allow(&format!(
                r#""Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*","Condition":{condition}"#
            ))
        };
        check(&bucket("{}"), &["no-condition", "public"]);
        check(&bucket(r#"{"IpAddress":{"aws:SourceIp":["198.51.100.0/24"]}}"#), &[]);
        check(&bucket(r#"{"IpAddress":{"aws:SourceIp":["198.51.100.0/24","0.0.0.0/1"]}}"#), &["public"]);
        check(&bucket(r#"{"NotIpAddress":{"aws:SourceIp":"198.51.100.0/24"}}"#), &["public"]);
        check(&bucket(r#"{"StringEquals":{"aws:sourcevpce":"vpce-1"}}"#), &[]);
        check(&bucket(r#"{"StringEquals":{"aws:SourceAccount":"999999999999"}}"#), &["external:999999999999"]);
        check(&bucket(r#"{"StringEquals":{"aws:SourceAccount":"111111111111"}}"#), &[]);
        check(&bucket(r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/x"}}"#), &["public"]);
        check(
            &bucket(r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::999999999999:role/*"}}"#),
            &["external:999999999999"],
        );
        let external = r#""Principal":{"AWS":"999999999999"},"Action":"s3:*","Resource":"*""#;
        check(&allow(external), &["external:999999999999", "no-condition"]);
        check(&allow(external).replace("Allow", "Deny"), &[]);
    }

    #[test]
    fn policies_of_principals_tell_their_power() {
        let grant = |action: &str, resource: &str| allow(&format!(r#""Action":{action},"Resource":{resource}"#));
        check(&grant(r#""*""#, r#""*""#), &["no-condition", "star-admin"]);
        check(&grant(r#"["s3:Get*","*:*"]"#, r#"["arn:aws:s3:::b","*"]"#), &["no-condition", "star-admin"]);
        check(&grant(r#""*""#, r#""arn:aws:s3:::b""#), &["no-condition", "star-action"]);
        check(&grant(r#""ec2:*""#, r#""*""#), &["no-condition", "star-resource:ec2"]);
        check(&grant(r#""iam:PassRole""#, r#""*""#), &["no-condition", "pass-role"]);
        check(&grant(r#""iam:PassRole""#, r#""arn:aws:iam::111111111111:role/app""#), &[]);
        check(&grant(r#""iam:passrole""#, r#""arn:aws:iam::*:role/*""#), &["no-condition", "pass-role"]);
        check(&grant(r#"["iam:Put*","sts:Assume*"]"#, r#""*""#), &["assume-any", "iam-write", "no-condition"]);
        check(&grant(r#""iam:CreateAccessKey""#, r#""arn:aws:iam::*:user/${aws:username}""#), &[]);
        check(&grant(r#""s3:*""#, r#""arn:aws:s3:::b/*""#), &[]);
        check(&grant(r#""s3:GetObject""#, r#""*""#), &[]);
        let power = r#""NotAction":["iam:*","organizations:*"],"Resource":"*""#;
        check(&allow(power), &["assume-any", "no-condition", "star-not-action"]);
        let one = r#"{"statement":{"effect":"allow","action":"*","resource":"*"}}"#;
        check(one, &["no-condition", "star-admin"]);
        check(
            "%7B%22Statement%22%3A%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%22%2A%22%2C%22Resource%22%3A%22%2A%22%7D%7D",
            &["no-condition", "star-admin"],
        );
        check(&serde_json::to_string(one).expect("text"), &["no-condition", "star-admin"]);
    }

    #[test]
    fn what_is_no_policy_has_no_findings() {
        let deep = format!(r#"{{"Statement":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let long = format!(r#"{{"Statement":"{}"}}"#, "x".repeat(DOCUMENT_BYTES_MAX));
        for wrong in ["", "null", "7", "[]", "%", "%7B", "{", r#"{"Statement":[1,null,"x"]}"#, &deep, &long] {
            check(wrong, &[]);
        }
        check(&allow(r#""Principal":{"AWS":{"a":1}},"Action":7,"Condition":[1]"#), &[]);
        let many = vec![r#"{"Effect":"Allow","Principal":"*","Action":"x"}"#; 2_500].join(",");
        check(&format!(r#"{{"Statement":[{many}]}}"#), &["no-condition", "public"]);
        let accounts: Vec<String> = (0..2_000).map(|n| format!("\"{n:012}\"")).collect();
        let codes = findings(&allow(&format!(r#""Principal":{{"AWS":[{}]}}"#, accounts.join(","))), &[]);
        assert_eq!(codes.len(), CODES_MAX);
    }

    #[test]
    fn a_new_version_shows_what_it_lost() {
        let check = |before: &str, after: &str, expected: &[&str]| {
            assert_eq!(losses(before, after), expected, "{before} {after}");
        };
        let get = |condition: &str| allow(&format!(r#""Action":"s3:Get*","Resource":"*","Condition":{condition}"#));
        let mfa = get(r#"{"Bool":{"aws:MultiFactorAuthPresent":"true"}}"#);
        check(&mfa, &mfa, &[]);
        check(&mfa, &get("{}"), &["lost-condition:aws:multifactorauthpresent"]);
        check(&mfa, &allow(r#""Action":"s3:*","Resource":"*""#), &["lost-condition:aws:multifactorauthpresent"]);
        check(&mfa, &allow(r#""Action":"ec2:*","Resource":"*""#), &[]);
        check(&get("{}"), &mfa, &[]);
        let from = |blocks: &str| get(&format!(r#"{{"IpAddress":{{"aws:SourceIp":[{blocks}]}}}}"#));
        check(&from(r#""10.0.0.0/8""#), &from(r#""10.1.0.0/16""#), &[]);
        check(&from(r#""10.0.0.0/8""#), &from(r#""10.0.0.0/7","10.2.0.0/16""#), &["wider-network:10.0.0.0/7"]);
        check(&from(r#""10.0.0.0/8""#), &get("{}"), &["lost-condition:aws:sourceip"]);
        let deny = r#"{"Statement":[{"Effect":"Deny","Action":["s3:DeleteBucket","s3:PutBucketAcl"],"Resource":"*"}]}"#;
        check(deny, &deny.replace(r#""s3:DeleteBucket","#, ""), &["lost-deny:s3:deletebucket"]);
        check(deny, &deny.replace(r#""s3:DeleteBucket","#, r#""s3:Delete*","#), &[]);
        check(deny, &mfa, &["lost-deny:s3:deletebucket", "lost-deny:s3:putbucketacl"]);
        check(deny, "not a policy", &[]);
        let stars = allow(&format!(r#""Action":"{}""#, "*a".repeat(30_000)));
        check(&stars, &stars, &["not-compared"]);
    }
}
