//! What names of files and folders say: AWS's layout of S3 buckets, rotated audit logs. Pure.

use std::path::Path;

use event::Source;

/// `YYYYMMDDhhmmss` of a name such as `111122223333_CloudTrail_eu-west-1_20260115T0905Z_x.json.gz` or
/// `audit-2026-01-15T09-05-01.123.log`: roughly when the events in it happened.
pub(super) fn time_in_name(path: &Path) -> Option<u64> {
    let name = path.file_name()?.as_encoded_bytes();
    (0..name.len()).find_map(|at| {
        let from = &name[at..];
        match_digits(from, b"ddddddddTddddZ")
            .map(|time| time * 100)
            .or_else(|| match_digits(from, b"dddd-dd-ddTdd-dd-dd"))
    })
}

/// The digits at every `d`, if the rest is as in the pattern.
fn match_digits(text: &[u8], pattern: &[u8]) -> Option<u64> {
    let text = text.get(..pattern.len())?;
    let mut number = 0;
    for (&byte, &wanted) in text.iter().zip(pattern) {
        match wanted {
            b'd' if byte.is_ascii_digit() => number = number * 10 + u64::from(byte - b'0'),
            b'd' => return None,
            _ if byte != wanted => return None,
            _ => {}
        }
    }
    Some(number)
}

/// Why a file holds no events of the source, if its place says so.
/// <https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-find-log-files.html>
pub(super) fn no_events(path: &Path, source: Source) -> Option<String> {
    if source != Source::CloudTrail {
        return None;
    }
    let names: Vec<&str> = path.iter().filter_map(|name| name.to_str()).collect();
    let digest = |name: &&str| **name == *"CloudTrail-Digest" || name.contains("_CloudTrail-Digest_");
    if names.iter().any(digest) {
        return Some("CloudTrail digests, which sign log files and hold no events".to_owned());
    }
    // AWSLogs/[o-organization/]account/service/…
    let root = names.iter().position(|name| *name == "AWSLogs")?;
    let account = |name: &str| name.len() == 12 && name.bytes().all(|b| b.is_ascii_digit());
    let accounts = names[root + 1..].iter().take(2).position(|name| account(name))?;
    let service = names.get(root + accounts + 2)?;
    let is_file = root + accounts + 3 == names.len();
    (!is_file && !service.starts_with("CloudTrail")).then(|| format!("logs of another AWS service ({service})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_in_names() {
        let check = |name: &str, expected: Option<u64>| assert_eq!(time_in_name(Path::new(name)), expected, "{name}");
        let s3 = "AWSLogs/111122223333/CloudTrail/eu-west-1/2026/01/15/111122223333_CloudTrail_eu-west-1_20260115T0905Z_x.json.gz";
        check(s3, Some(20_260_115_090_500));
        check("audit-2026-01-15T09-05-01.123.log.gz", Some(20_260_115_090_501));
        check("audit-2026-01-15.log", None);
        check("audit.log", None);
        check("20260115T0905Z/audit.log", None);
    }

    #[test]
    fn places_without_events_are_known() {
        let check = |path: &str, source, expected: Option<&str>| {
            let why = no_events(Path::new(path), source);
            assert_eq!(why.is_some(), expected.is_some(), "{path}: {why:?}");
            assert!(why.unwrap_or_default().contains(expected.unwrap_or_default()), "{path}");
        };
        let trail = Source::CloudTrail;
        check("b/AWSLogs/111122223333/CloudTrail/eu-west-1/2026/01/15/x.json.gz", trail, None);
        check("b/AWSLogs/111122223333/CloudTrail-Insight/eu-west-1/2026/x.json.gz", trail, None);
        check("b/AWSLogs/111122223333/CloudTrail-Digest/eu-west-1/2026/x.json.gz", trail, Some("digests"));
        check("flat/111122223333_CloudTrail-Digest_eu-west-1_t.json.gz", trail, Some("digests"));
        check("b/AWSLogs/o-abc123/111122223333/CloudTrail/x.json.gz", trail, None);
        check("b/AWSLogs/o-abc123/111122223333/vpcflowlogs/x.log.gz", trail, Some("another AWS service (vpcflowlogs)"));
        check("b/AWSLogs/111122223333/Config/eu-west-1/x.json.gz", trail, Some("Config"));
        check("b/AWSLogs/111122223333/x.json.gz", trail, None);
        check("b/AWSLogs/111122223333/Config/x.json.gz", Source::Kubernetes, None);
    }
}
