//! Functions on addresses and blocks. CloudTrail has service names where addresses belong, anonymised logs have
//! worse: text that is no address is in no block and not public, so that `NOT cidr_match(…)` keeps such rows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Args, Cell, Function, Takes, distinct, refused};
use crate::Problem;
use arrow::array::ArrayRef;
use datafusion::error::Result;

pub(super) fn functions() -> Vec<Function> {
    let cidr_match = Function::new("cidr_match", &[Takes::Text, Takes::Text], bool::data_type(), cidr_match)
        .constants(|known| known[1].map_or(Ok(()), |block| constant_block(block).map(drop)));
    vec![
        cidr_match,
        Function::of_text("cidr_len", |text| Cidr::parse(text).map(|block| i64::from(block.len))),
        Function::of_text("ip_norm", |text| address(text).map(|a| a.to_string())),
        Function::of_text("ip_is_public", |text| address(text).is_some_and(is_public)),
    ]
}

/// `cidr_match(text, cidr)`: the text is an address inside the block.
fn cidr_match(args: &Args) -> Result<ArrayRef> {
    let texts = args.texts(0)?;
    let (cells, rows) = match args.constant(1) {
        Some(block) => {
            let block = block.map(constant_block).transpose().map_err(refused)?;
            distinct(texts.iter(), |text| is_in(text, block))
        }
        None => {
            distinct(texts.iter().zip(args.texts(1)?.iter()), |(text, block)| is_in(text, block.and_then(Cidr::parse)))
        }
    };
    Ok(bool::array(&cells, &rows))
}

fn is_in(text: Option<&str>, block: Option<Cidr>) -> bool {
    block.is_some_and(|b| text.and_then(address).is_some_and(|a| b.contains(a)))
}

fn constant_block(text: &str) -> Result<Cidr, Problem> {
    Cidr::parse(text)
        .ok_or_else(|| Problem::new(format!("`{text}` is not an address block")).hint("write it like 10.0.0.0/8"))
}

/// The address that the text is, IPv4 mapped into IPv6 as IPv4. Leading zeros are decimal, as logs mean them.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    written(text.trim()).map(|a| a.to_canonical())
}

fn written(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| padded_v4(text).map(IpAddr::V4))
}

/// `010.001.000.255`, which the standard library refuses.
fn padded_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = digits(parts.next()?, 3)?.try_into().ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

/// A number of at most so many digits and nothing else.
fn digits(text: &str, most: usize) -> Option<u32> {
    let right = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    right.then(|| text.parse().ok()).flatten()
}

/// An address block; a bare address is a block of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cidr {
    base: u128,
    pub len: u8,
    v4: bool,
}

impl Cidr {
    pub fn parse(text: &str) -> Option<Cidr> {
        let (base, len) = match text.trim().split_once('/') {
            Some((base, len)) => (base, Some(digits(len, 3)?)),
            None => (text.trim(), None),
        };
        let base = written(base)?;
        let (bits, canonical) = (bits(base), base.to_canonical());
        let len = len.unwrap_or(bits);
        // A block of mapped addresses that is wider than all of IPv4 stays what it is.
        let (base, len) = match len.checked_sub(bits - self::bits(canonical)) {
            Some(len) if len <= self::bits(canonical) => (canonical, len),
            Some(_) => return None,
            None => (base, len),
        };
        Some(Cidr::of(base, len as u8))
    }

    /// The block of this length that the address lies in.
    pub fn of(address: IpAddr, len: u8) -> Cidr {
        // Shifting by the full width is not defined, hence the checked form: /0 matches everything.
        let mask = u128::MAX.checked_shl(bits(address) - u32::from(len)).unwrap_or(0);
        Cidr { base: number(address) & mask, len, v4: address.is_ipv4() }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.v4 && Cidr::of(address, self.len) == *self
    }

    /// All of the other block lies in this one.
    pub fn covers(&self, other: &Cidr) -> bool {
        self.v4 == other.v4 && self.len <= other.len && self.contains(other.first())
    }

    pub fn is_v4(&self) -> bool {
        self.v4
    }

    pub fn first(&self) -> IpAddr {
        match self.v4 {
            true => IpAddr::V4(Ipv4Addr::from(self.base as u32)),
            false => IpAddr::V6(Ipv6Addr::from(self.base)),
        }
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.first(), self.len)
    }
}

fn bits(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// Not one of the special-purpose blocks of the IANA registries (RFC 6890 and its updates).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let special = a == 0
        || v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b & 0xfe) == 18)
        || a >= 224;
    !special
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let segments = v6.segments();
    // 64:ff9b::/96 carries an IPv4 address in its last 32 bits.
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(Ipv4Addr::from(u128::from(v6) as u32));
    }
    let special = v6.is_loopback()
        || v6.is_unspecified()
        || v6.is_multicast()
        || (segments[0] & 0xfe00) == 0xfc00
        || (segments[0] & 0xffc0) == 0xfe80
        || (segments[0] == 0x2001 && segments[1] == 0xdb8)
        || (segments[0] == 0x100 && segments[1..4] == [0, 0, 0]);
    !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_contain_addresses_of_their_own_family() {
        let check = |address_text: &str, block: &str, expected: bool| {
            let found = address(address_text).is_some_and(|a| Cidr::parse(block).expect("a block").contains(a));
            assert_eq!(found, expected, "{address_text} in {block}");
        };
        check("10.1.2.3", "10.0.0.0/8", true);
        check("11.1.2.3", "10.0.0.0/8", false);
        check("10.1.2.3", "10.1.2.3", true);
        check("1.2.3.4", "0.0.0.0/0", true);
        check("::ffff:10.1.2.3", "10.0.0.0/8", true);
        check("2001:db8::1", "2001:db8::/32", true);
        check("2001:db9::1", "2001:db8::/32", false);
        check("::1", "0.0.0.0/0", false);
        check("10.1.2.3", "::ffff:10.0.0.0/104", true);
        check("10.1.2.3", "::/0", false);
        check("010.001.002.003", "10.0.0.0/8", true);
        check("ec2.amazonaws.com", "0.0.0.0/0", false);
        check("", "0.0.0.0/0", false);
        for wrong in [
            "10.0.0.0/33",
            "10.0.0/8",
            "x",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "::ffff:1.2.3.4/129",
            "",
        ] {
            assert_eq!(Cidr::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn blocks_show_their_length_and_addresses_their_canonical_form() {
        let len = |text: &str, expected: Option<u8>| assert_eq!(Cidr::parse(text).map(|b| b.len), expected, "{text}");
        len("0.0.0.0/0", Some(0));
        len("::/0", Some(0));
        len("10.0.0.0/8", Some(8));
        len("10.0.0.1", Some(32));
        len("2001:db8::1", Some(128));
        len("::ffff:10.0.0.0/104", Some(8));
        len("sg-123", None);
        let norm = |text: &str, expected: Option<&str>| {
            assert_eq!(address(text).map(|a| a.to_string()).as_deref(), expected, "{text}");
        };
        norm(" 010.001.000.255 ", Some("10.1.0.255"));
        norm("::FFFF:8.8.8.8", Some("8.8.8.8"));
        norm("2001:0DB8:0:0::1", Some("2001:db8::1"));
        norm("256.1.1.1", None);
        norm("1.2.3", None);
        norm("1.2.3.4.5", None);
        norm("0001.2.3.4", None);
        norm("١.2.3.4", None);
    }

    #[test]
    fn public_is_what_the_internet_routes() {
        let check = |text: &str, expected: bool| {
            assert_eq!(address(text).is_some_and(is_public), expected, "{text}");
        };
        for public in ["8.8.8.8", "100.63.0.1", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"] {
            check(public, true);
        }
        for inner in [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "fd00::1",
            "fe80::1",
            "::1",
            "64:ff9b::a00:1",
            "AWS Internal",
        ] {
            check(inner, false);
        }
    }
}
