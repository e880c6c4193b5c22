//! A certificate request as a client writes it: PKCS #10 in DER, in PEM, in Base64, as the API takes it (RFC 2986). The key
//! and the signature are no real ones: nobody here checks them.

/// `subject` in order, by the short names `O` and `CN`.
pub(super) fn request(subject: &[(&str, &str)]) -> String {
    let name: Vec<u8> = subject.iter().flat_map(|(kind, value)| attribute(kind, value)).collect();
    // P-256: the curve's ids, and a point.
    let algorithm =
        sequence(&[&[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1], &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]]);
    let point: Vec<u8> = [0, 4].into_iter().chain((0..64u8).map(|n| n.wrapping_mul(37) ^ 0x5a)).collect();
    let key = sequence(&[&algorithm, &element(0x03, &point)]);
    let information = sequence(&[&[0x02, 1, 0], &element(0x30, &name), &key, &[0xa0, 0]]);
    let ecdsa = sequence(&[&[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
    let signature = sequence(&[&element(0x02, &[0x11; 32]), &element(0x02, &[0x22; 32])]);
    let signature: Vec<u8> = std::iter::once(0).chain(signature).collect();
    let der = sequence(&[&information, &ecdsa, &element(0x03, &signature)]);
    let text = base64(&der);
    let mut pem = "-----BEGIN CERTIFICATE REQUEST-----\n".to_owned();
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    base64(format!("{pem}-----END CERTIFICATE REQUEST-----\n").as_bytes())
}

fn attribute(kind: &str, value: &str) -> Vec<u8> {
    let last = if kind == "O" { 10 } else { 3 };
    let pair = sequence(&[&[0x06, 3, 0x55, 4, last], &element(0x0c, value.as_bytes())]);
    element(0x31, &pair)
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut der = vec![tag];
    match length {
        0..128 => der.push(length as u8),
        128..256 => der.extend([0x81, length as u8]),
        _ => der.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    der.extend(content);
    der
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for n in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * n) & 63) as usize];
            text.push(if n <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (input, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(super::base64(input.as_bytes()), expected);
        }
    }
}
