//! A secret of the configuration: the name of an environment variable or the path of a file, never the text itself.
//! It cannot be printed or serialized; `read` is the only way to the text.

use std::fmt;
use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Place);

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Env(String),
    File(PathBuf),
}

const HINT: &str =
    "a secret cannot stand in the configuration\nhint: write `{env: NAME}` or `{file: PATH}` and put the text there";

impl Secret {
    pub fn env(name: impl Into<String>) -> Secret {
        Secret(Place::Env(name.into()))
    }

    pub fn file(path: impl Into<PathBuf>) -> Secret {
        Secret(Place::File(path.into()))
    }

    /// The text without surrounding white space. The error names the place and never the text.
    pub fn read(&self) -> Result<String, String> {
        let (text, place) = match &self.0 {
            Place::Env(name) => {
                let text = std::env::var(name)
                    .map_err(|_| format!("environment variable {name} is not set\nhint: it should hold the secret"))?;
                (text, format!("environment variable {name}"))
            }
            Place::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| {
                    format!("cannot read secret file {}: {e}\nhint: it should hold the secret", path.display())
                })?;
                (text, format!("secret file {}", path.display()))
            }
        };
        match text.trim() {
            "" => Err(format!("{place} is empty\nhint: it should hold the secret")),
            text => Ok(text.to_owned()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

/// Every scalar is refused by hand: serde's own messages would repeat the text.
impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`{env: NAME}` or `{file: PATH}`")
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Secret, E> {
        Err(E::custom(HINT))
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Secret, E> {
        Err(E::custom(HINT))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom(HINT))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Secret, E> {
        Err(E::custom(HINT))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Secret, E> {
        Err(E::custom(HINT))
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Secret, E> {
        Err(E::custom(HINT))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let mut secret = None;
        while let Some(key) = map.next_key::<String>()? {
            let place = match key.as_str() {
                "env" => Place::Env(map.next_value()?),
                "file" => Place::File(map.next_value()?),
                _ => return Err(A::Error::custom("a secret is `{env: NAME}` or `{file: PATH}`")),
            };
            if secret.replace(Secret(place)).is_some() {
                return Err(A::Error::custom("a secret has one place, `env` or `file`"));
            }
        }
        secret.ok_or_else(|| A::Error::custom("a secret is `{env: NAME}` or `{file: PATH}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_place_is_accepted_and_nothing_is_printed() {
        let check = |yaml: &str, expected: Result<Secret, &str>| {
            let got = serde_saphyr::from_str::<Secret>(yaml).map_err(|e| e.to_string());
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert!(got == expected),
                (Err(got), Err(part)) => assert!(got.contains(part), "{got}"),
                (got, _) => panic!("{yaml}: {got:?}"),
            }
        };
        check("{env: PD_KEY}", Ok(Secret::env("PD_KEY")));
        check("{file: /run/key}", Ok(Secret::file("/run/key")));
        check("hunter2", Err("hint: write `{env: NAME}`"));
        check("12345", Err("hint: write `{env: NAME}`"));
        check("true", Err("hint: write `{env: NAME}`"));
        check("{plain: hunter2}", Err("`{env: NAME}` or `{file: PATH}`"));
        check("{env: A, file: B}", Err("one place"));
        assert_eq!(format!("{:?}", Secret::env("PD_KEY")), "<secret>");
    }
}
