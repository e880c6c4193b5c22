//! A planted secret occurs nowhere in a batch, in no column and no buffer; everything else keeps its bytes.

use arrow::array::{Array, ArrayData, RecordBatch};
use event::Source::{self, CloudTrail, Falco, Kubernetes};
use serde_json::{Value, json};

use super::{cell, normalize, real_lines, rows};
use crate::hash::row_hash;

const SECRET: &str = "c3VwZXJzZWNyZXQtcGxhbnRlZA";
const GONE: &str = "[redacted]";

/// Is it anywhere in what the batch holds?
fn holds(rows: &RecordBatch, needle: &str) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    let mut all: Vec<ArrayData> = rows.columns().iter().map(|column| column.to_data()).collect();
    while let Some(data) = all.pop() {
        // Columns share their buffers.
        let fresh = data.buffers().iter().filter(|buffer| seen.insert((buffer.as_ptr() as usize, buffer.len())));
        if fresh.into_iter().any(|buffer| memchr::memmem::find(buffer, needle.as_bytes()).is_some()) {
            return true;
        }
        all.extend(data.child_data().to_vec());
    }
    false
}

/// `event` has [`SECRET`] in places that are to be redacted and nowhere else; `values` are whole JSON strings.
fn check(source: Source, event: &str) {
    assert!(event.contains(SECRET), "{event}");
    let normalized = normalize(source, event);
    assert_eq!(normalized.batches.len(), 1, "{event}");
    let (table, batch) = (&*normalized.batches[0].table, &normalized.batches[0].rows);
    assert_eq!(table, source.name(), "{:?}", rows(&normalized));
    assert!(!holds(batch, SECRET), "{event}");
    assert!(!holds(batch, &SECRET[3..]), "{event}");
    let raw = cell(batch, "raw", 0).unwrap();
    assert_eq!(raw, event.replace(SECRET, GONE), "all other bytes stay");
    assert!(serde_json::from_str::<Value>(&raw).is_ok(), "{raw}");
    assert_eq!(cell(batch, "redacted", 0).unwrap(), "true");
    let hash: String = row_hash(event.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(cell(batch, "row_hash", 0).unwrap(), hash, "of the original");
}

fn unchanged(source: Source, event: &str) {
    let normalized = normalize(source, event);
    assert_eq!(rows(&normalized), [format!("{source}: {event}")]);
    assert_eq!(cell(&normalized.batches[0].rows, "redacted", 0).unwrap(), "false");
}

fn kubernetes(rest: &str) -> String {
    format!(
        r#"{{"auditID":"a","stage":"ResponseComplete","verb":"create", "stageTimestamp":"2024-01-01T00:00:00Z",{rest}}}"#
    )
}

fn cloudtrail(rest: &str) -> String {
    format!(r#"{{"eventName":"E","eventTime":"2024-01-01T00:00:00Z", {rest}}}"#)
}

#[test]
fn secrets_in_kubernetes_bodies() {
    let secret = |fields: &str| format!(r#"{{"kind":"Secret","apiVersion":"v1","metadata":{{"name":"n"}},{fields}}}"#);
    let reference = r#""objectRef":{"resource":"secrets","namespace":"d","name":"n"}"#;
    let about = |body: &str| kubernetes(&format!(r#"{reference},"requestObject":{body}"#));
    let data = format!(r#""data":{{"k":"{SECRET}"}}"#);
    check(Kubernetes, &about(&secret(&data)));
    check(Kubernetes, &about(&secret(&format!(r#""type":"Opaque","stringData":{{"k":"{SECRET}","l":"{SECRET}"}}"#))));
    check(Kubernetes, &about(&format!("{{{data}}}")));
    check(Kubernetes, &about(&format!(r#"{{"data":"{SECRET}"}}"#)));
    check(Kubernetes, &about(&format!(r#"{{"d\u0061ta":{{"k":"{SECRET}"}}}}"#)));
    check(Kubernetes, &about(&format!(r#"{{"data":{{}},"data":{{"k":"{SECRET}"}}}}"#)));
    check(Kubernetes, &about(&format!(r#"[{{"op":"replace","path":"/data/k","value":"{SECRET}"}}]"#)));
    check(
        Kubernetes,
        &about(&format!(
            r#"[{{"op":"add","path":"/data","value":{{"k":"{SECRET}","n":null}}}},{{"op":"test","path":"/stringData/x","value":"{SECRET}"}}]"#
        )),
    );
    check(Kubernetes, &about(&format!(r#"[{{"op":"add","path":"","value":{{"x":"{SECRET}"}}}}]"#)));
    let applied =
        format!(r#""metadata":{{"annotations":{{"kubectl.kubernetes.io/last-applied-configuration":"{SECRET}"}}}}"#);
    check(Kubernetes, &about(&format!("{{{applied}}}")));
    check(
        Kubernetes,
        &kubernetes(&format!(
            r#"{reference},"responseObject":{{"kind":"SecretList","items":[{{{data}}},{{{data},{applied}}}]}}"#
        )),
    );
    check(
        Kubernetes,
        &kubernetes(&format!(
            r#""objectRef":{{"resource":"secrets"}},"responseObject":{{"kind":"Table","rows":[{{"cells":[],"object":{{{applied}}}}}]}}"#
        )),
    );
    // The kind gives it away where the reference does not.
    check(Kubernetes, &kubernetes(&format!(r#""responseObject":{}"#, secret(&data))));
    check(
        Kubernetes,
        &kubernetes(&format!(r#""requestObject":{{"kind":"List","items":[{{"kind":"Pod"}},{}]}}"#, secret(&data))),
    );
    // Of a repeated key the first one counts, and the second one is redacted all the same.
    check(Kubernetes, &kubernetes(&format!(r#""requestObject":{{}},"requestObject":{}"#, secret(&data))));
    check(
        Kubernetes,
        &kubernetes(&format!(
            r#"{reference},"annotations":{{"patch.webhook.admission.k8s.io/round_0_index_0":"{SECRET}"}},"requestObject":{{}}"#
        )),
    );
}

#[test]
fn kubernetes_tokens() {
    let token = |reference: &str, body: &str| kubernetes(&format!(r#""objectRef":{{{reference}}},{body}"#));
    let account = r#""resource":"serviceaccounts","name":"b","subresource":"token""#;
    check(
        Kubernetes,
        &token(
            account,
            &format!(
                r#""requestObject":{{"spec":{{"expirationSeconds":60}}}},"responseObject":{{"kind":"TokenRequest","status":{{"token":"{SECRET}","expirationTimestamp":"x"}}}}"#
            ),
        ),
    );
    let review = r#""resource":"tokenreviews""#;
    check(
        Kubernetes,
        &token(
            review,
            &format!(
                r#""requestObject":{{"kind":"TokenReview","spec":{{"token":"{SECRET}"}}}},"responseObject":{{"spec":{{"token":"{SECRET}"}},"status":{{"authenticated":true}}}}"#
            ),
        ),
    );
    check(Kubernetes, &kubernetes(&format!(r#""requestURI":"/api/v1/pods?watch=1&access_token={SECRET}&x=1""#)));
    check(Kubernetes, &kubernetes(&format!(r#""requestURI":"/api/v1/pods?token={SECRET}""#)));
    check(Kubernetes, &kubernetes(&format!(r#""requestURI":"/api/v1/pods?a=1\u0026token={SECRET}\u0026b=1""#)));
    check(
        Kubernetes,
        &kubernetes(&format!(
            r#""requestURI":"/api/v1/namespaces/d/pods/p/exec?command=curl&command=-H&command=Authorization:+Bearer+{SECRET}""#
        )),
    );
}

#[test]
fn cloudtrail_secrets() {
    for key in [
        "sessionToken",
        "secretAccessKey",
        "SecretString",
        "password",
        "masterUserPassword",
        "newPassword",
        "accessToken",
        "X-Amz-Security-Token",
        "x-amz-signature",
        "clientSecret",
        "plaintext",
    ] {
        check(
            CloudTrail,
            &cloudtrail(&format!(
                r#""responseElements":{{"credentials":{{"accessKeyId":"ASIA1","{key}":"{SECRET}","expiration":"x"}}}}"#
            )),
        );
        check(
            CloudTrail,
            &cloudtrail(&format!(
                r#""requestParameters":{{"a":[1,{{"{key}" : "{SECRET}"}}]}},"responseElements":null"#
            )),
        );
    }
    check(
        CloudTrail,
        &cloudtrail(&format!(
            r#""requestParameters":{{"url":"https://b.s3.amazonaws.com/k?X-Amz-Date=1&X-Amz-Signature={SECRET}&X-Amz-Security-Token={SECRET}"}}"#
        )),
    );
    check(
        CloudTrail,
        &cloudtrail(&format!(r#""responseElements":1,"responseElements":{{"sessionToken":"{SECRET}"}}"#)),
    );
    let found = normalize(
        CloudTrail,
        cloudtrail(&format!(
            r#""responseElements":{{"credentials":{{"accessKeyId":"ASIA1","sessionToken":"{SECRET}"}}}}"#
        )),
    );
    assert_eq!(cell(&found.batches[0].rows, "issued_access_key_id", 0).unwrap(), "ASIA1");
}

#[test]
fn falco_secrets() {
    let falco = |cmdline: &str| {
        format!(
            r#"{{"rule":"r","time":"2024-01-01T00:00:00Z","output":"{cmdline}","output_fields":{{"proc.cmdline":"{cmdline}"}}}}"#
        )
    };
    check(Falco, &falco(&format!("curl -H \\\"Authorization: Bearer {SECRET}\\\" https://x")));
    check(Falco, &falco(&format!("env AWS_SECRET_ACCESS_KEY={SECRET} AWS_SESSION_TOKEN={SECRET} aws s3 ls")));
    check(Falco, &falco(&format!("wget 'https://x/y?X-Amz-Signature={SECRET}'")));
}

#[test]
fn what_is_no_secret_stays() {
    let plain = r#""objectRef":{"resource":"configmaps"},"requestObject":{"kind":"ConfigMap","data":{"password":"x"}}"#;
    unchanged(Kubernetes, &kubernetes(plain));
    unchanged(
        Kubernetes,
        &kubernetes(
            r#""objectRef":{"resource":"secrets"},"requestObject":{"kind":"Secret","data":null,"stringData":{},"metadata":{"labels":{"a":"b"}}}"#,
        ),
    );
    unchanged(
        Kubernetes,
        &kubernetes(
            r#""objectRef":{"resource":"secrets"},"requestObject":[{"op":"add","path":"/metadata/labels/a","value":"b"}]"#,
        ),
    );
    unchanged(
        Kubernetes,
        &kubernetes(r#""objectRef":{"resource":"secrets"},"requestObject":{"data":{"k":"[redacted]"}}"#),
    );
    unchanged(Kubernetes, &kubernetes(r#""requestURI":"/api/v1/pods?continue=abc&limit=500""#));
    unchanged(
        CloudTrail,
        &cloudtrail(
            r#""requestParameters":{"nextToken":"n","clientToken":"c","secretId":"s","passwordResetRequired":true,"password":"HIDDEN_DUE_TO_SECURITY_REASONS"}"#,
        ),
    );
    unchanged(
        CloudTrail,
        &cloudtrail(
            r#""responseElements":{"subjectFromWebIdentityToken":"system:serviceaccount:a:b","password":"****","sessionToken":null}"#,
        ),
    );
    unchanged(
        CloudTrail,
        &cloudtrail(r#""requestParameters":{"token":"x"},"errorMessage":"The bearer token is invalid""#),
    );
}

#[test]
fn real_events_lose_their_session_tokens_and_nothing_else() {
    let mut redacted = 0;
    for line in real_lines("cloudtrail/invictus.ndjson") {
        let line = String::from_utf8(line).unwrap();
        let normalized = normalize(CloudTrail, line.as_str());
        let batch = &normalized.batches[0].rows;
        assert!(!holds(batch, "SCRUBBED"), "{line}");
        let (mut before, after) = (serde_json::from_str::<Value>(&line).unwrap(), cell(batch, "raw", 0).unwrap());
        if let Some(token) = before.pointer_mut("/responseElements/credentials/sessionToken") {
            *token = GONE.into();
            redacted += 1;
        } else {
            assert_eq!(after, line);
        }
        assert_eq!(serde_json::from_str::<Value>(&after).unwrap(), before);
    }
    println!("{redacted} events with a session token");
}

#[test]
fn a_secret_in_a_text_within_a_text_is_found() {
    let inner = cloudtrail(&format!(r#""responseElements":{{"credentials":{{"sessionToken":"{SECRET}"}}}}"#));
    let message = json!({"Events": [{"CloudTrailEvent": inner}]}).to_string();
    let normalized = normalize(CloudTrail, message);
    assert!(!holds(&normalized.batches[0].rows, SECRET));
    assert_eq!(rows(&normalized), [format!("cloudtrail: {}", inner.replace(SECRET, GONE))]);
}
