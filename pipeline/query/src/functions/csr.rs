//! `x509_csr_subject`: whose certificate a PKCS#10 request asks for. Only the way to the subject is read, with
//! definite lengths inside the request and everything else refused (RFC 2986, X.690).

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::Function;

/// Bytes of a request as written. One with a 16,384 bit key has about 6 KB.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Attributes of a subject.
const ATTRIBUTES_MAX: usize = 64;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const INTEGER: u8 = 0x02;

/// By the dotted form of their object identifier (RFC 4519, RFC 2985).
const NAMES: [(&str, &str); 10] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) fn functions() -> Vec<Function> {
    vec![Function::of_text("x509_csr_subject", subject)]
}

/// The subject as `CN=…,O=…`, in the request's order; `+` joins what is one relative name, and what would be
/// taken for a separator has a backslash in front (RFC 4514).
fn subject(text: &str) -> Option<String> {
    let der = der(text)?;
    let (request, _) = element(&der, SEQUENCE)?;
    let (info, _) = element(request, SEQUENCE)?;
    let (_version, info) = element(info, INTEGER)?;
    let (mut names, _) = element(info, SEQUENCE)?;
    let mut shown: Vec<String> = Vec::new();
    let mut left = ATTRIBUTES_MAX;
    while !names.is_empty() {
        let (mut set, rest) = element(names, SET)?;
        names = rest;
        let mut together = Vec::new();
        while !set.is_empty() {
            left = left.checked_sub(1)?;
            let (attribute, rest) = element(set, SEQUENCE)?;
            set = rest;
            together.push(shown_attribute(attribute)?);
        }
        shown.push(together.join("+"));
    }
    Some(shown.join(","))
}

/// Kubernetes has base64 of PEM, which is base64 again.
fn der(text: &str) -> Option<Vec<u8>> {
    if text.len() > REQUEST_BYTES_MAX {
        return None;
    }
    if let Some(body) = pem_body(text) {
        return decoded(body);
    }
    let bytes = decoded(text)?;
    match std::str::from_utf8(&bytes).ok().and_then(pem_body) {
        Some(body) => decoded(body),
        None => Some(bytes),
    }
}

fn pem_body(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    label.ends_with("CERTIFICATE REQUEST").then(|| rest.split("-----END").next()).flatten()
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let compact: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    BASE64.decode(compact).ok()
}

/// The content of the element that `bytes` begins with, which must have this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any_element(bytes)?;
    (found == tag).then_some((content, rest))
}

fn any_element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

fn shown_attribute(attribute: &[u8]) -> Option<String> {
    let (id, rest) = element(attribute, OBJECT_ID)?;
    let (tag, value, _) = any_element(rest)?;
    let id = dotted(id)?;
    let name = NAMES.iter().find(|(known, _)| *known == id).map_or(id.as_str(), |(_, name)| name);
    Some(format!("{name}={}", escaped(&string(tag, value)?)))
}

fn dotted(id: &[u8]) -> Option<String> {
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc: u64 = 0;
    for byte in id {
        arc = arc.checked_mul(128)?.checked_add(u64::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            arcs.push(std::mem::take(&mut arc));
        }
    }
    // The first two arcs share a number.
    let (first, second) = match *arcs.first()? {
        joint @ 0..80 => (joint / 40, joint % 40),
        joint => (2, joint - 80),
    };
    let arcs = [first, second].into_iter().chain(arcs.into_iter().skip(1));
    Some(arcs.map(|a| a.to_string()).collect::<Vec<_>>().join("."))
}

/// The string types of X.520.
fn string(tag: u8, bytes: &[u8]) -> Option<String> {
    match tag {
        // UTF8String, NumericString, PrintableString, IA5String, VisibleString.
        0x0c | 0x12 | 0x13 | 0x16 | 0x1a => String::from_utf8(bytes.to_vec()).ok(),
        // TeletexString, in practice Latin-1.
        0x14 => Some(bytes.iter().map(|b| char::from(*b)).collect()),
        // BMPString.
        0x1e => {
            let units: Vec<u16> = bytes.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();
            String::from_utf16(&units).ok().filter(|_| bytes.len().is_multiple_of(2))
        }
        _ => None,
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.extend(c.escape_unicode()),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = content.len();
        let mut bytes = vec![tag];
        match len {
            0..0x80 => bytes.push(len as u8),
            _ => bytes.extend([0x82, (len >> 8) as u8, len as u8]),
        }
        bytes.extend(content);
        bytes
    }

    fn attribute(id: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        tlv(SEQUENCE, &[tlv(OBJECT_ID, id), tlv(tag, value)].concat())
    }

    fn request(sets: &[Vec<u8>]) -> Vec<u8> {
        let names = sets.iter().flat_map(|set| tlv(SET, set)).collect::<Vec<_>>();
        let info = [tlv(INTEGER, &[0]), tlv(SEQUENCE, &names), tlv(SEQUENCE, &[0; 300])].concat();
        tlv(SEQUENCE, &[tlv(SEQUENCE, &info), tlv(SEQUENCE, b""), tlv(0x03, b"\0")].concat())
    }

    #[test]
    fn subjects_are_read_from_every_form() {
        let der = request(&[
            attribute(&[0x55, 4, 10], 0x13, b"system:masters"),
            [attribute(&[0x55, 4, 3], 0x0c, b"ad,min"), attribute(&[0x55, 4, 11], 0x1e, b"\0o\0u")].concat(),
            attribute(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], 0x16, b"a@b"),
            attribute(&[0x2b, 6, 1, 4, 1, 0x82, 0x37], 0x14, b"\xe9"),
        ]);
        let expected = r"O=system:masters,CN=ad\,min+OU=ou,emailAddress=a@b,1.3.6.1.4.1.311=é";
        let base64 = BASE64.encode(&der);
        let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{base64}\n-----END CERTIFICATE REQUEST-----\n");
        let check = |text: &str| assert_eq!(subject(text).as_deref(), Some(expected), "{text}");
        check(&base64);
        check(base64.trim_end_matches('='));
        check(&pem);
        check(&pem.replace("CERTIFICATE REQ", "NEW CERTIFICATE REQ"));
        check(&BASE64.encode(&pem));
        assert_eq!(subject(&BASE64.encode(request(&[]))).as_deref(), Some(""));
    }

    /// Made with `openssl req -new -newkey ed25519 -nodes -subj /O=system:masters/CN=kubernetes-admin`.
    #[test]
    fn openssl_writes_what_we_read() {
        let pem = include_str!("csr.pem");
        assert_eq!(subject(pem).as_deref(), Some("O=system:masters,CN=kubernetes-admin"));
    }

    #[test]
    fn hostile_requests_have_no_subject() {
        let good = request(&[attribute(&[0x55, 4, 3], 0x0c, b"x")]);
        for cut in 0..good.len() - 5 {
            let cut = subject(&BASE64.encode(&good[..cut]));
            assert_eq!(cut, None);
        }
        let mut seed = 7_u32;
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = seed as usize % bytes.len();
            bytes[at] = (seed >> 16) as u8;
            // Whatever it gives, it ends and does not panic.
            let _ = subject(&BASE64.encode(&bytes));
        }
        let many = request(&vec![attribute(&[0x55, 4, 3], 0x0c, b"x"); ATTRIBUTES_MAX + 1]);
        for wrong in [BASE64.encode(many), "A".repeat(REQUEST_BYTES_MAX + 1), String::new(), "MII=!".into()] {
            assert_eq!(subject(&wrong), None);
        }
        let long = [0x30, 0x84, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(subject(&BASE64.encode(long)), None);
        assert_eq!(subject(&BASE64.encode([0x30, 0x80, 0, 0])), None);
    }
}
