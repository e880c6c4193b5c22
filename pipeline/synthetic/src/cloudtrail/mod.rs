//! CloudTrail records (event version 1.11): how one is written, whoever asks for it.

mod background;
mod callers;
mod calls;
mod data;
mod parameters;

use event::{Micros, format_micros};
use rand::rngs::SmallRng;

pub use background::{Background, background};
pub use calls::{Mix, calls};
pub use data::SHARES as DATA_SHARES;
use data::data_event;

use crate::random::{put, put_base32, put_base64, uuid};
use crate::world::{Principal, PrincipalKind};

/// One record as CloudTrail writes it.
pub struct Record<'a> {
    pub service: &'a str,
    pub call: &'a str,
    pub read_only: bool,
    /// JSON text.
    pub parameters: String,
    /// JSON text.
    pub response: String,
    /// Code and message.
    pub error: Option<(&'a str, String)>,
    pub principal: &'a Principal,
}

/// What only some records have.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Elements of `resources`; empty if there is none.
    pub resources: String,
    /// A call about an object, which only data event trails record.
    pub data: bool,
    pub no_tls: bool,
    pub vpc_endpoint: Option<String>,
    /// Made with credentials of a console session.
    pub console: bool,
    /// Where the request went, if not to the region's own endpoint.
    pub host: Option<String>,
}

impl Record<'_> {
    /// The event id and the bytes.
    pub fn render(&self, rng: &mut SmallRng, at: Micros) -> (String, Vec<u8>) {
        self.render_with(rng, at, &Extras::default())
    }

    pub fn render_with(&self, rng: &mut SmallRng, at: Micros, extras: &Extras) -> (String, Vec<u8>) {
        let Record { service, call, read_only, parameters, response, error, principal } = self;
        let (region, account) = (principal.region, &principal.account);
        let mut text = String::with_capacity(2_048);
        let out = &mut text;
        put!(out, r#"{{"eventVersion":"1.11","userIdentity":{}"#, principal.identity());
        let time = format_micros(at - at.rem_euclid(1_000_000));
        put!(out, r#","eventTime":"{time}","eventSource":"{service}.amazonaws.com","eventName":"{call}""#);
        if principal.kind == PrincipalKind::Service {
            let domain = principal.service_domain();
            put!(out, r#","awsRegion":"{region}","sourceIPAddress":"{domain}","userAgent":"{domain}""#);
        } else {
            let Principal { ip, agent, .. } = principal;
            put!(out, r#","awsRegion":"{region}","sourceIPAddress":"{ip}","userAgent":"{agent}""#);
        }
        if let Some((code, message)) = error {
            put!(out, r#","errorCode":"{code}","errorMessage":"{message}""#);
        }
        put!(out, r#","requestParameters":{parameters},"responseElements":{response}"#);
        let of_s3 = *service == "s3";
        if of_s3 {
            put_transfer(out, rng, call);
            out.push_str(r#","requestID":""#);
            put_base32(out, rng, 16);
        } else {
            put!(out, r#","requestID":"{}"#, uuid(rng));
        }
        let event_id = uuid(rng);
        put!(out, r#"","eventID":"{event_id}","readOnly":{read_only}"#);
        if !extras.resources.is_empty() {
            put!(out, r#","resources":[{}]"#, extras.resources);
        }
        let (management, category) = if extras.data { (false, "Data") } else { (true, "Management") };
        put!(out, r#","eventType":"AwsApiCall","managementEvent":{management},"recipientAccountId":"{account}""#);
        if let Some(endpoint) = &extras.vpc_endpoint {
            put!(out, r#","vpcEndpointId":"{endpoint}""#);
        }
        put!(out, r#","eventCategory":"{category}""#);
        if !extras.no_tls && principal.kind != PrincipalKind::Service {
            let host = extras.host.clone().unwrap_or_else(|| format!("{service}.{region}.amazonaws.com"));
            let (version, suite) = match principal.number % 3 {
                0 => ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256"),
                _ => ("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
            };
            put!(
                out,
                r#","tlsDetails":{{"tlsVersion":"{version}","cipherSuite":"{suite}","clientProvidedHostHeader":"{host}"}}"#
            );
        }
        if extras.console {
            out.push_str(r#","sessionCredentialFromConsole":"true""#);
        }
        out.push('}');
        (event_id, text.into_bytes())
    }
}

/// What S3 adds about the transfer: signature, bytes and the id that its support asks for.
fn put_transfer(out: &mut String, rng: &mut SmallRng, call: &str) {
    let (inward, outward) = match call {
        "PutObject" => (size(rng), 0),
        "GetObject" => (0, size(rng)),
        _ => (0, 200 + size(rng) % 500),
    };
    put!(out, r#","additionalEventData":{{"SignatureVersion":"SigV4","CipherSuite":"TLS_AES_128_GCM_SHA256""#);
    put!(out, r#","bytesTransferredIn":{inward},"AuthenticationMethod":"AuthHeader","x-amz-id-2":""#);
    put_base64(out, rng, 75);
    put!(out, r#"=","bytesTransferredOut":{outward}}}"#);
}

fn size(rng: &mut SmallRng) -> u64 {
    (4_000.0 * crate::random::exp(1.6 * crate::random::normal(rng))) as u64 + 11
}
