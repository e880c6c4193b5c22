//! Our functions on addresses. Both are total: text that is not an address (CloudTrail has service names there,
//! anonymised logs have worse) and NULL give false, so that `NOT cidr_match(…)` keeps such rows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::scalar::ScalarValue;

pub(crate) fn all() -> Vec<Arc<ScalarUDF>> {
    let text = DataType::Utf8View;
    let immutable = Volatility::Immutable;
    vec![
        Arc::new(create_udf(
            "cidr_match",
            vec![text.clone(), text.clone()],
            DataType::Boolean,
            immutable,
            Arc::new(cidr_match),
        )),
        Arc::new(create_udf("ip_is_public", vec![text], DataType::Boolean, immutable, Arc::new(ip_is_public))),
    ]
}

/// `cidr_match(text, cidr)`: the text is an address inside the block. A block that does not parse is an error.
fn cidr_match(args: &[ColumnarValue]) -> Result<ColumnarValue> {
    if let ColumnarValue::Scalar(block) = &args[1] {
        let block = match block.try_as_str() {
            Some(Some(text)) => Some(Cidr::parse(text)?),
            _ => None,
        };
        return per_text(&args[0], |text| block.is_some_and(|b| address(text).is_some_and(|a| b.contains(a))));
    }
    let arrays = ColumnarValue::values_to_arrays(args)?;
    let (texts, blocks) = (arrays[0].as_string_view(), arrays[1].as_string_view());
    let mut matches = Vec::with_capacity(texts.len());
    for (text, block) in texts.iter().zip(blocks.iter()) {
        matches.push(match (text, block) {
            (Some(text), Some(block)) => {
                let block = Cidr::parse(block)?;
                address(text).is_some_and(|a| block.contains(a))
            }
            _ => false,
        });
    }
    Ok(ColumnarValue::Array(Arc::new(BooleanArray::from(matches))))
}

/// `ip_is_public(text)`: the text is an address that the Internet routes.
fn ip_is_public(args: &[ColumnarValue]) -> Result<ColumnarValue> {
    per_text(&args[0], |text| address(text).is_some_and(is_public))
}

fn per_text(value: &ColumnarValue, test: impl Fn(&str) -> bool) -> Result<ColumnarValue> {
    match value {
        ColumnarValue::Scalar(text) => {
            let matched = text.try_as_str().flatten().is_some_and(test);
            Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(matched))))
        }
        ColumnarValue::Array(texts) => {
            let matched: BooleanArray = texts.as_string_view().iter().map(|t| Some(t.is_some_and(&test))).collect();
            Ok(ColumnarValue::Array(Arc::new(matched) as ArrayRef))
        }
    }
}

/// An IPv4 address mapped into IPv6 is the IPv4 address.
fn address(text: &str) -> Option<IpAddr> {
    text.trim().parse::<IpAddr>().ok().map(|a| a.to_canonical())
}

#[derive(Clone, Copy)]
struct Cidr {
    base: u128,
    mask: u128,
    v4: bool,
}

impl Cidr {
    fn parse(text: &str) -> Result<Cidr> {
        let wrong =
            || DataFusionError::Execution(format!("`{text}` is not an address block\nhint: write it like 10.0.0.0/8"));
        let (base, prefix) = text.trim().split_once('/').unwrap_or((text.trim(), ""));
        let base: IpAddr = base.parse().map_err(|_| wrong())?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix = if prefix.is_empty() { bits } else { prefix.parse().map_err(|_| wrong())? };
        if prefix > bits {
            return Err(wrong());
        }
        // Shifting by the full width is not defined, hence the checked form: /0 matches everything.
        let mask = u128::MAX.checked_shl(bits - prefix).unwrap_or(0);
        Ok(Cidr { base: number(base) & mask, mask, v4: base.is_ipv4() })
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.v4 && number(address) & self.mask == self.base
    }
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
            let found = address(address_text).is_some_and(|a| Cidr::parse(block).unwrap().contains(a));
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
        check("ec2.amazonaws.com", "0.0.0.0/0", false);
        check("", "0.0.0.0/0", false);
        for wrong in ["10.0.0.0/33", "10.0.0/8", "x", "10.0.0.0/-1", "::/129"] {
            assert!(Cidr::parse(wrong).is_err(), "{wrong}");
        }
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
