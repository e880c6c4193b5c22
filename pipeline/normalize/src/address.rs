//! Addresses as one spelling each, so that equal ones are equal text: IPv6 compressed and in lower case
//! (https://www.rfc-editor.org/rfc/rfc5952), IPv4 without leading zeros, an IPv4 address within an IPv6 one as itself,
//! no brackets, no port, no zone. What is no address (`AWS Internal`, a service's name) stays as it is.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The one spelling of the address that `text` is; `text` when it is none.
pub(crate) fn normal(text: &str) -> Cow<'_, str> {
    // The standard parser takes no leading zeros: what it takes is spelled right already.
    if text.parse::<Ipv4Addr>().is_ok() {
        return Cow::Borrowed(text);
    }
    match parse(text) {
        Some(address) => Cow::Owned(address.to_string()),
        None => Cow::Borrowed(text),
    }
}

fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, port) = rest.split_once(']')?;
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return if is_port { v6(inner) } else { None };
    }
    match text.split_once(':') {
        None => v4(text).map(IpAddr::V4),
        Some((address, port)) if is_port(port) && address.contains('.') => v4(address).map(IpAddr::V4),
        Some(_) => v6(text),
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

/// Leading zeros are decimal digits here, as in the logs that have them.
fn v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then_some(octets.into())
}

fn v6(text: &str) -> Option<IpAddr> {
    let (address, _zone) = text.split_once('%').unwrap_or((text, ""));
    address.parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_one_spelling() {
        let check = |text, expected: &str| assert_eq!(normal(text), expected, "{text}");
        check("10.1.2.3", "10.1.2.3");
        check("010.001.02.3", "10.1.2.3");
        check(" 10.1.2.3 ", "10.1.2.3");
        check("10.1.2.3:443", "10.1.2.3");
        check("::ffff:10.1.2.3", "10.1.2.3");
        check("[::ffff:a01:203]:80", "10.1.2.3");
        check("2001:0DB8:0:0:0:0:0:1", "2001:db8::1");
        check("[2001:db8::1]", "2001:db8::1");
        check("[2001:db8::1]:8443", "2001:db8::1");
        check("fe80::1%eth0", "fe80::1");
        check("::1", "::1");
    }

    #[test]
    fn what_is_no_address_stays() {
        for text in [
            "",
            "AWS Internal",
            "cloudtrail.amazonaws.com",
            "256.1.1.1",
            "10.1.2",
            "10.1.2.3.4",
            "1.2.3.0004",
            "1.2.3.4:99999",
            "[::1",
            "[::1]x",
            "a:1",
            ":",
            "::1::",
            "10.1.2.3/8",
            "+1.2.3.4",
        ] {
            assert_eq!(normal(text), text);
        }
    }
}
