//! Everyday calls: who makes which, with what outcome. Two mixes: management events, and a trail that also records
//! what happens to objects.

use event::Micros;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore};

use super::callers::{self, Callers};
use super::calls::{Call, calls};
use super::parameters::{Asked, Asking, Value};
use super::{Extras, Record};
use crate::random::{chance, mix, pick, put, put_base64, zipf_of};
use crate::world::{Duty, Principal, PrincipalKind, Sizes, Thing, address};

/// What the background of one frame depends on.
pub struct Background<'a> {
    pub sizes: &'a Sizes,
    /// Counts frames; sessions begin and end between them.
    pub epoch: u64,
    /// When this frame began, and the one before: when the present sessions did.
    pub begun: [Micros; SESSION_FRAMES as usize],
    pub data_events: bool,
    /// Share of the calls that one principal makes, in percent; 0 for no such.
    pub hot_percent: f64,
    /// A new client address with every so many events; 0 for the usual ones.
    pub new_address: Option<u64>,
}

/// The role that makes nearly all calls of a hot stream, by rank.
const HOT_RANK: u64 = 18;
/// Programs that share it.
const HOT_PROGRAMS: u64 = 64;
/// Sessions last for so many frames: about sixty of them in 1 GB.
const SESSION_FRAMES: u64 = 2;

/// One background record of a call made at `at`.
pub fn background(rng: &mut SmallRng, at: Micros, of: &Background<'_>) -> Vec<u8> {
    if of.data_events && chance(rng, 97.5) {
        return super::data_event(rng, at, of);
    }
    let call = calls().draw(rng);
    let callers = callers::draw(rng, &call.callers);
    // What services do for themselves stays theirs: of the roles in a real account with one busy user, half were
    // assumed by services.
    let for_itself = callers == Callers::Service && call.name == "AssumeRole";
    let principal = if for_itself { of.usual(rng, callers) } else { of.principal(rng, callers) };
    let outcome = outcome(rng, call, &principal);
    let (bytes, _) = write(rng, at, of, call, &principal, outcome);
    bytes
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Throttled,
    Denied,
    NotFound,
}

/// Errors are one call in ten: throttled, denied, or asking for what is not there.
fn outcome(rng: &mut SmallRng, call: &Call, principal: &Principal) -> Outcome {
    if principal.kind == PrincipalKind::Service {
        return Outcome::Done;
    }
    match rng.random_range(0..1000) {
        // Guardrails stop most of what hardly anybody does.
        0..700 if principal.duty == Some(Duty::Admin) => Outcome::Denied,
        0..38 => Outcome::Throttled,
        38..438 if lacks(principal, call) => Outcome::Denied,
        63..330 if call.service == "s3" && call.name.starts_with("GetBucket") => Outcome::NotFound,
        63..130 if matches!(call.service, "ec2" | "ssm" | "iam") => Outcome::NotFound,
        _ => Outcome::Done,
    }
}

/// Who is denied is mostly one program asking for one thing over and over: a right that it was never given, one of
/// sixteen that it needs.
fn lacks(principal: &Principal, call: &Call) -> bool {
    let name = call.name.bytes().fold(0, |sum, byte| mix(sum, u64::from(byte)));
    mix(name, principal.number).is_multiple_of(16)
}

impl Background<'_> {
    pub fn principal(&self, rng: &mut SmallRng, callers: Callers) -> Principal {
        match self.hot_percent > 0.0 && chance(rng, self.hot_percent) {
            true => self.hot(rng),
            false => self.usual(rng, callers),
        }
    }

    /// The one behind most of a hot stream: a role that many programs share at once, each in a session of its own and
    /// with the client that it is written with. The busy user of the real account had 140 clients.
    fn hot(&self, rng: &mut SmallRng) -> Principal {
        let number = hot_role();
        let program = zipf_of(rng, HOT_PROGRAMS, 0.5);
        let (count, since) = self.session(number);
        let session = count * HOT_PROGRAMS + program;
        Principal::in_session(number, PrincipalKind::AssumedRole, session, since).with_client(program)
    }

    fn usual(&self, rng: &mut SmallRng, callers: Callers) -> Principal {
        let number = callers.number(rng, self.sizes);
        if self.hot_percent > 0.0 && number == hot_role() {
            return self.hot(rng);
        }
        let (session, since) = self.session(number);
        let mut principal = Principal::in_session(number, callers.kind(), session, since);
        match self.new_address {
            Some(n) => principal.ip = address(n * 10 + 3),
            // One call in seven comes from elsewhere: applications move, people travel.
            None if principal.moves() && chance(rng, 14.0) => {
                principal.ip = address(zipf_of(rng, self.sizes.addresses, 1.2))
            }
            None => {}
        }
        principal
    }

    /// Which session a principal is in, and when it began: those of different principals change at different times.
    fn session(&self, number: u64) -> (u64, Micros) {
        let phase = self.epoch + number % SESSION_FRAMES;
        (phase / SESSION_FRAMES, self.begun[(phase % SESSION_FRAMES) as usize])
    }
}

fn hot_role() -> u64 {
    Principal::number_of(PrincipalKind::AssumedRole, HOT_RANK)
}

/// Writes the record of `call`. Also returns what was asked, for whoever needs the names.
pub fn write(
    rng: &mut SmallRng,
    at: Micros,
    of: &Background<'_>,
    call: &Call,
    principal: &Principal,
    outcome: Outcome,
) -> (Vec<u8>, Asked) {
    let asking = Asking { principal, sizes: of.sizes, at };
    let Call { service, name, read_only, members, .. } = call;
    let mut asked = asking.put(rng, members);
    let error = error(call, principal, outcome, &asked);
    if outcome == Outcome::Denied && *service != "s3" && *service != "ec2" {
        asked.text = "null".to_owned();
    }
    let response = match outcome {
        Outcome::Done => response(rng, at, call, principal),
        _ => "null".to_owned(),
    };
    let console = principal.is_human() && !matches!(*service, "kms" | "sts");
    let extras = Extras {
        resources: resources(principal, &asked, outcome),
        no_tls: console || !principal.tells_tls,
        console,
        vpc_endpoint: (principal.number % 9 == 2)
            .then(|| format!("vpce-{}", crate::random::hex(0x92, principal.number / 27, 17))),
        host: asked.bucket.as_ref().map(|bucket| format!("{bucket}.s3.{}.amazonaws.com", principal.region)),
        data: matches!(members.last(), Some((_, Value::Made("objectkey")))),
    };
    let parameters = std::mem::take(&mut asked.text);
    let record = Record { service, call: name, read_only: *read_only, parameters, response, error, principal };
    let (_, bytes) = record.render_with(rng, at, &extras);
    (bytes, asked)
}

fn error(call: &Call, principal: &Principal, outcome: Outcome, asked: &Asked) -> Option<(&'static str, String)> {
    let Call { service, name, .. } = call;
    match outcome {
        Outcome::Done => None,
        Outcome::Throttled => Some(match *service {
            "ec2" => ("Client.RequestLimitExceeded", "Request limit exceeded.".to_owned()),
            _ => ("ThrottlingException", "Rate exceeded".to_owned()),
        }),
        Outcome::Denied => {
            let resource = asked.about.first().map_or_else(String::new, |(_, arn)| format!(" on resource: {arn}"));
            let who = match principal.kind {
                PrincipalKind::Service => principal.service_domain(),
                _ => principal.arn(),
            };
            let why = if *service == "s3" { "" } else { " because no identity-based policy allows it" };
            let message = format!("User: {who} is not authorized to perform: {service}:{name}{resource}{why}");
            Some((if *service == "ec2" { "Client.UnauthorizedOperation" } else { "AccessDenied" }, message))
        }
        Outcome::NotFound => Some(match (*service, *name) {
            ("s3", "GetBucketPolicy") => ("NoSuchBucketPolicy", "The bucket has no policy".to_owned()),
            ("s3", "GetBucketCors") => ("NoSuchCORSConfiguration", "The bucket has no CORS rules".to_owned()),
            ("s3", "GetBucketLifecycle") => ("NoSuchLifecycleConfiguration", "The bucket has no lifecycle".to_owned()),
            ("s3", _) => ("NoSuchTagSet", "The bucket has no such configuration".to_owned()),
            ("ssm", _) => ("ParameterNotFound", "No such parameter".to_owned()),
            ("iam", _) => ("NoSuchEntityException", "No entity of that name can be found.".to_owned()),
            _ => ("Client.InvalidRouteTableID.NotFound", "There is no such id".to_owned()),
        }),
    }
}

fn resources(principal: &Principal, asked: &Asked, outcome: Outcome) -> String {
    let mut text = String::new();
    if outcome == Outcome::Throttled {
        return text;
    }
    for (thing, arn) in &asked.about {
        let comma = if text.is_empty() { "" } else { "," };
        let kind =
            if arn.contains('/') && *thing == Thing::Bucket { Some("AWS::S3::Object") } else { thing.resource_type() };
        put!(&mut text, r#"{comma}{{"accountId":"{}","#, principal.account);
        if let Some(kind) = kind {
            put!(&mut text, r#""type":"{kind}","#);
        }
        put!(&mut text, r#""ARN":"{arn}"}}"#);
    }
    text
}

/// Reads answer nothing that CloudTrail records; some writes do, and AssumeRole gives keys.
fn response(rng: &mut SmallRng, at: Micros, call: &Call, principal: &Principal) -> String {
    let mut text = String::new();
    match (call.service, call.name) {
        ("sts", "AssumeRole") => {
            let role = crate::random::base32(7, rng.random_range(0..4_000), 17);
            let until = event::format_micros(at - at.rem_euclid(1_000_000) + 3_600_000_000);
            text.push_str(r#"{"credentials":{"accessKeyId":"ASIA"#);
            crate::random::put_base32(&mut text, rng, 16);
            text.push_str(r#"","sessionToken":""#);
            put_base64(&mut text, rng, 1_120);
            put!(
                &mut text,
                r#"","expiration":"{until}"}},"assumedRoleUser":{{"assumedRoleId":"AROA{role}:{}","#,
                principal.session
            );
            put!(&mut text, r#""arn":"{}"}}}}"#, principal.arn());
        }
        ("ec2", name) if !call.read_only => {
            let id = crate::random::uuid(rng);
            match name.starts_with("Create") {
                true => {
                    let new = Thing::Interface.id(rng.next_u64() >> 20);
                    put!(&mut text, r#"{{"requestId":"{id}","resourceId":"{new}","state":"pending","#);
                    put!(&mut text, r#""ownerId":"{}","tagSet":{{}}}}"#, principal.account);
                }
                false => put!(&mut text, r#"{{"requestId":"{id}","_return":true}}"#),
            }
        }
        ("iam", name) if name.starts_with("Create") => {
            let id = crate::random::base32(7, rng.next_u64() >> 20, 17);
            put!(
                &mut text,
                r#"{{"created":{{"path":"/","id":"AROA{id}","createDate":"{}"}}}}"#,
                event::format_micros(at - at.rem_euclid(1_000_000))
            );
        }
        ("ssm", "PutParameter") => {
            put!(&mut text, r#"{{"version":{},"tier":"Standard"}}"#, pick(rng, &[1, 2, 3, 4, 9, 17]))
        }
        ("secretsmanager", _) if !call.read_only => {
            put!(
                &mut text,
                r#"{{"arn":"{}","versionId":"{}"}}"#,
                Thing::Secret.arn(zipf_of(rng, 4_000, 1.0), principal.region, &principal.account),
                crate::random::uuid(rng)
            );
        }
        _ => text.push_str("null"),
    }
    text
}
