//! Functions on image references, read as Docker reads them (distribution/reference, `ParseNormalizedNamed`):
//! `nginx` is `docker.io/library/nginx:latest`. What is no reference has no parts.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray, StructArray};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::error::Result;

use super::{Args, Function, Takes, distinct};

/// Bytes of a reference: 255 for the name, 128 for the tag, and a digest.
const REFERENCE_BYTES_MAX: usize = 1_024;

const PARTS: [&str; 4] = ["registry", "repository", "tag", "digest"];

pub(super) fn functions() -> Vec<Function> {
    vec![
        Function::of_text("image_registry", |text| parse(text)?.registry),
        Function::of_text("image_repository", |text| parse(text)?.repository),
        Function::of_text("image_tag", |text| parse(text)?.tag),
        Function::of_text("image_digest", |text| parse(text)?.digest),
        Function::new("image_parts", &[Takes::Text], DataType::Struct(fields()), image_parts),
    ]
}

fn fields() -> Fields {
    PARTS.iter().map(|name| Field::new(*name, DataType::Utf8View, true)).collect()
}

/// `image_parts(reference)`: all parts in one value.
fn image_parts(args: &Args) -> Result<ArrayRef> {
    let texts = args.texts(0)?;
    let (cells, rows) = distinct(texts.iter(), |text| text.and_then(parse).unwrap_or_default());
    let column = |part: fn(&Image) -> &Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(|r| part(&cells[*r]).as_deref()).collect::<StringViewArray>())
    };
    let columns = vec![column(|i| &i.registry), column(|i| &i.repository), column(|i| &i.tag), column(|i| &i.digest)];
    Ok(Arc::new(StructArray::try_new(fields(), columns, None)?))
}

#[derive(Debug, Default, PartialEq)]
struct Image {
    registry: Option<String>,
    repository: Option<String>,
    tag: Option<String>,
    digest: Option<String>,
}

fn parse(text: &str) -> Option<Image> {
    let text = text.trim();
    let text = text.split_once("://").map_or(text, |(_, reference)| reference);
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
    if text.is_empty() || text.len() > REFERENCE_BYTES_MAX || !text.chars().all(legal) {
        return None;
    }
    if is_digest(text) {
        return Some(Image { digest: Some(text.to_owned()), ..Image::default() });
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) if is_digest(digest) => (name, Some(digest.to_owned())),
        Some(_) => return None,
        None => (text, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
        _ => (name, None),
    };
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => ("docker.io", name),
    };
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
    let library = registry == "docker.io" && !path.contains('/');
    if path.split('/').any(str::is_empty) || tag.as_deref() == Some("") || path.contains(':') {
        return None;
    }
    Some(Image {
        registry: Some(registry.to_ascii_lowercase()),
        repository: Some(if library { format!("library/{path}") } else { path.to_owned() }),
        tag: tag.or_else(|| digest.is_none().then(|| "latest".to_owned())),
        digest,
    })
}

fn is_host(text: &str) -> bool {
    let named = text.contains(['.', ':']) || text == "localhost" || text.bytes().any(|b| b.is_ascii_uppercase());
    named && !text.starts_with(':')
}

/// `sha256:` and the like with at least 32 hex digits.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    !algorithm.is_empty()
        && algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || b"+._-".contains(&b))
        && hex.len() >= 32
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_have_dockers_defaults() {
        let hex = "0123456789abcdef".repeat(4);
        let digest = format!("sha256:{hex}");
        let check = |text: &str, expected: [&str; 4]| {
            let image = parse(text).unwrap_or_default();
            let parts = [image.registry, image.repository, image.tag, image.digest];
            assert_eq!(parts.map(|p| p.unwrap_or("-".into())), expected, "{text}");
        };
        check("nginx", ["docker.io", "library/nginx", "latest", "-"]);
        check("grafana/grafana:10.1", ["docker.io", "grafana/grafana", "10.1", "-"]);
        check("index.docker.io/nginx", ["docker.io", "library/nginx", "latest", "-"]);
        check("quay.io/a/b/c:v1", ["quay.io", "a/b/c", "v1", "-"]);
        check("localhost/x", ["localhost", "x", "latest", "-"]);
        check("registry:5000/team/x", ["registry:5000", "team/x", "latest", "-"]);
        check("team/x", ["docker.io", "team/x", "latest", "-"]);
        check(&format!("ghcr.io/a/b@{digest}"), ["ghcr.io", "a/b", "-", &digest]);
        check(&format!("ghcr.io/a/b:1@{digest}"), ["ghcr.io", "a/b", "1", &digest]);
        check(&format!("docker-pullable://nginx@{digest}"), ["docker.io", "library/nginx", "-", &digest]);
        check(&digest, ["-", "-", "-", &digest]);
        check(
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app",
            ["123456789012.dkr.ecr.eu-west-1.amazonaws.com", "app", "latest", "-"],
        );
        for wrong in ["", " ", "${IMAGE}", "a b", "a//b", "x:", "x@sha256:12", "quay.io/", "/x", &"a".repeat(2_000)] {
            check(wrong, ["-", "-", "-", "-"]);
        }
    }
}
