//! Who may send: each token stands for one source, one cluster and one topic. Kept as hashes only.

use std::fmt;
use std::hint::black_box;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use event::Source;
use sha2::{Digest, Sha256};

/// Shorter ones can be guessed. 16 bytes are what `openssl rand -hex 8` prints.
pub const TOKEN_BYTES_MIN: usize = 16;

/// What a sender's token says of what it sends.
pub struct Token {
    /// For people: in logs, never in answers.
    pub name: String,
    pub source: Source,
    pub cluster: Option<String>,
    pub topic: String,
    hash: [u8; 32],
}

impl Token {
    pub fn new(secret: &str, name: &str, source: Source, cluster: Option<&str>, topic: &str) -> Token {
        let cluster = cluster.map(str::to_owned);
        Token { name: name.to_owned(), source, cluster, topic: topic.to_owned(), hash: hash(secret.as_bytes()) }
    }

    pub fn same_secret(&self, other: &Token) -> bool {
        self.hash == other.hash
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {} of {}", self.name, self.source)
    }
}

#[derive(Debug)]
pub struct Tokens(pub Vec<Token>);

impl Tokens {
    /// Looks at every token to its end, so that time tells nothing of how close a guess was.
    pub(super) fn find(&self, presented: &[u8]) -> Option<&Token> {
        let presented = hash(presented);
        let differs = |token: &Token| {
            let pairs = token.hash.iter().zip(&presented);
            black_box(pairs.fold(0, |differs, (a, b)| differs | (a ^ b)))
        };
        self.0.iter().fold(None, |found, token| if differs(token) == 0 { Some(token) } else { found })
    }
}

fn hash(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// What the request presents: a bearer token, or the password of Basic authentication for senders that can set
/// nothing else.
pub(super) fn presented(headers: &HeaderMap) -> Option<Vec<u8>> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, rest) = value.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(rest.trim().as_bytes().to_vec()),
        "basic" => {
            let pair = STANDARD.decode(rest.trim()).ok()?;
            let colon = pair.iter().position(|b| *b == b':')?;
            Some(pair[colon + 1..].to_vec())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_secret_only() {
        let token = |secret, name| Token::new(secret, name, Source::Falco, Some("prod"), "falco");
        let tokens = Tokens(vec![token("first-secret", "a"), token("second-secret", "b"), token("third-secret", "c")]);
        let found = |presented: &str| tokens.find(presented.as_bytes()).map(|t| t.name.as_str());
        assert_eq!(found("first-secret"), Some("a"));
        assert_eq!(found("third-secret"), Some("c"));
        assert_eq!((found("first-secre"), found("first-secret "), found("")), (None, None, None));
        assert!(!format!("{tokens:?}").contains("secret"));
    }

    #[test]
    fn bearer_and_basic_are_understood() {
        let check = |value: &str, expected: Option<&str>| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            assert_eq!(presented(&headers), expected.map(|e| e.as_bytes().to_vec()), "{value}");
        };
        check("Bearer abc", Some("abc"));
        check("bearer  abc ", Some("abc"));
        check(&format!("Basic {}", STANDARD.encode("falco:pass:word")), Some("pass:word"));
        check(&format!("basic {}", STANDARD.encode("nocolon")), None);
        check("Basic ***", None);
        check("abc", None);
        check("Digest abc", None);
        assert_eq!(presented(&HeaderMap::new()), None);
    }
}
