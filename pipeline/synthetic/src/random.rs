//! Random numbers that depend on a seed and a number only, and the same on every machine: powers and logarithms are
//! computed here, because those of the C library differ in the last bit between platforms.

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

/// Appends formatted text to a `String`.
macro_rules! put {
    ($out:expr, $($argument:tt)*) => {
        std::fmt::Write::write_fmt($out, format_args!($($argument)*)).expect("a String takes any text")
    };
}
pub(crate) use put;

/// The random numbers of one event: any event can be made again from the seed and its number alone.
pub fn draw(seed: u64, number: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number.wrapping_mul(0xD134_2543_DE82_EF95))
}

/// One well-mixed number for an entity (the finalizer of SplitMix64).
pub fn mix(kind: u64, number: u64) -> u64 {
    let mut z = number.wrapping_add(kind.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0x1234_5678_9ABC_DEF1);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A rank below `n`, the first ones most often (Zipf with exponent 1).
pub fn zipf(rng: &mut SmallRng, n: u64) -> u64 {
    zipf_of(rng, n, 1.0)
}

/// A rank below `n` by Zipf's law with `exponent`: the inverse of the continuous distribution.
pub fn zipf_of(rng: &mut SmallRng, n: u64, exponent: f64) -> u64 {
    let (u, n_max) = (rng.random::<f64>(), n as f64 + 1.0);
    let flat = 1.0 - exponent;
    let rank = if flat.abs() < 1e-3 { pow(n_max, u) } else { pow((pow(n_max, flat) - 1.0) * u + 1.0, 1.0 / flat) };
    (rank as u64).clamp(1, n) - 1
}

/// One of a slice.
pub fn pick<T: Copy>(rng: &mut SmallRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

/// True in `percent` of cases.
pub fn chance(rng: &mut SmallRng, percent: f64) -> bool {
    rng.random::<f64>() * 100.0 < percent
}

/// Standard normal, by the sum of twelve: its tails end at six.
pub fn normal(rng: &mut SmallRng) -> f64 {
    (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}

/// A value from measured quantiles, linear between them: `(share, value)`, from share 0 to share 1.
pub fn quantile(rng: &mut SmallRng, table: &[(f64, f64)]) -> f64 {
    let u = rng.random::<f64>();
    let above = table.iter().position(|(share, _)| *share > u).unwrap_or(table.len() - 1).max(1);
    let ((low_share, low), (high_share, high)) = (table[above - 1], table[above]);
    low + (high - low) * (u - low_share) / (high_share - low_share)
}

pub fn pow(base: f64, exponent: f64) -> f64 {
    exp2(exponent * log2(base))
}

pub fn exp(x: f64) -> f64 {
    exp2(x * std::f64::consts::LOG2_E)
}

pub fn ln(x: f64) -> f64 {
    log2(x) * std::f64::consts::LN_2
}

fn log2(x: f64) -> f64 {
    debug_assert!(x.is_normal() && x > 0.0);
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i64 - 1023;
    let mut mantissa = f64::from_bits((bits & 0x000F_FFFF_FFFF_FFFF) | (1023 << 52));
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    // ln m = 2 atanh((m - 1) / (m + 1))
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let series = [17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0].iter().fold(0.0, |sum, n| sum * square + 1.0 / n);
    exponent as f64 + 2.0 * t * series * std::f64::consts::LOG2_E
}

fn exp2(x: f64) -> f64 {
    let x = x.clamp(-1000.0, 1000.0);
    let whole = (x + 0.5).floor();
    let t = (x - whole) * std::f64::consts::LN_2;
    let fraction = (1..=13).rev().fold(1.0, |sum, n| 1.0 + sum * t / f64::from(n));
    fraction * f64::from_bits(((whole as i64 + 1023) as u64) << 52)
}

/// A version 4 UUID.
pub fn uuid(rng: &mut SmallRng) -> String {
    uuid_of(rng.next_u64(), rng.next_u64())
}

/// The fixed UUID of an entity.
pub fn entity_uuid(kind: u64, number: u64) -> String {
    uuid_of(mix(kind, number), mix(kind ^ 0x5555, number))
}

fn uuid_of(a: u64, b: u64) -> String {
    let mut text = String::with_capacity(36);
    let variant = 0x8000_0000_0000_0000 | (b >> 2);
    let version = (a & !0xf000) | 0x4000;
    for (n, byte) in version.to_be_bytes().into_iter().chain(variant.to_be_bytes()).enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push(HEX[usize::from(byte >> 4)] as char);
        text.push(HEX[usize::from(byte & 15)] as char);
    }
    text
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// What Kubernetes makes name suffixes of: no vowels, nothing that reads like another.
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Fixed pseudo-random hex digits of an entity.
pub fn hex(kind: u64, number: u64, digits: usize) -> String {
    let mut text = String::with_capacity(digits);
    spell(&mut text, &mut draw(kind, number), HEX, digits);
    text
}

/// Fixed letters of an entity, as Kubernetes generates names.
pub fn suffix(kind: u64, number: u64, letters: usize) -> String {
    let mut text = String::with_capacity(letters);
    spell(&mut text, &mut draw(kind, number), SAFE, letters);
    text
}

/// Fixed letters of an entity, as in AWS ids.
pub fn base32(kind: u64, number: u64, letters: usize) -> String {
    let mut text = String::with_capacity(letters);
    spell(&mut text, &mut draw(kind, number), BASE32, letters);
    text
}

pub fn put_hex(out: &mut String, rng: &mut SmallRng, digits: usize) {
    spell(out, rng, HEX, digits);
}

pub fn put_base32(out: &mut String, rng: &mut SmallRng, letters: usize) {
    spell(out, rng, BASE32, letters);
}

pub fn put_base64(out: &mut String, rng: &mut SmallRng, letters: usize) {
    spell(out, rng, BASE64, letters);
}

fn spell(out: &mut String, rng: &mut SmallRng, alphabet: &[u8], letters: usize) {
    let size = alphabet.len() as u64;
    let mut left = letters;
    while left > 0 {
        let mut bits = rng.next_u64();
        for _ in 0..left.min(8) {
            out.push(alphabet[(bits % size) as usize] as char);
            bits /= size;
        }
        left -= left.min(8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_and_logarithms_are_right() {
        for x in [1e-9, 0.3, 0.999, 1.0, 1.5, 2.0, 4000.0, 1e12] {
            assert!((log2(x) - x.log2()).abs() < 1e-11, "{x}");
            assert!((pow(x, 0.37) / x.powf(0.37) - 1.0).abs() < 1e-10, "{x}");
        }
        assert!((exp(1.0) - std::f64::consts::E).abs() < 1e-12);
    }

    #[test]
    fn zipf_falls_as_its_exponent_says() {
        let mut rng = draw(1, 1);
        for exponent in [0.9, 1.0, 1.1, 1.6] {
            let mut counts = [0u32; 4_000];
            (0..400_000).for_each(|_| counts[zipf_of(&mut rng, 4_000, exponent) as usize] += 1);
            // Between rank 10 and rank 100 a Zipf count falls by 10^exponent; neighbours are summed against noise.
            let around = |rank: usize| counts[rank - rank / 10..rank + rank / 10].iter().sum::<u32>() as f64;
            let fall = around(10) / around(100) * 10.0;
            assert!((fall.log10() - exponent).abs() < 0.1, "{exponent}: {fall}");
        }
    }

    #[test]
    fn uuids_are_of_version_4() {
        let text = uuid(&mut draw(1, 2));
        assert_eq!((text.len(), &text[14..15]), (36, "4"));
        assert!("89ab".contains(&text[19..20]), "{text}");
    }
}
