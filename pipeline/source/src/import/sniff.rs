//! What a file is, by how it begins. Names lie; the first bytes seldom do.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;

pub(super) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Enough to find the first byte that is not blank, and the mark of a tar archive.
const HEAD_BYTES: usize = 4096;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A JSON object or list first.
    Json,
    /// Lines of something else, with JSON among them or not.
    Other,
    Empty,
    /// No lines at all: what it is, and what makes lines of it.
    Unusable(&'static str),
}

/// How formats begin that hold logs, or are found beside them.
const FORMATS: [(&[u8], &str); 9] = [
    (b"\x28\xb5\x2f\xfd", "is packed with zstd\nhint: unpack it with `unzstd`"),
    (b"PK\x03\x04", "is a zip archive\nhint: unpack it with `unzip`"),
    (b"BZh", "is packed with bzip2\nhint: unpack it with `bunzip2`"),
    (b"\xfd7zXZ\0", "is packed with xz\nhint: unpack it with `unxz`"),
    (b"\x04\x22\x4d\x18", "is packed with lz4\nhint: unpack it with `unlz4`"),
    (b"PAR1", "is Parquet\nhint: import the JSON it was made from"),
    (b"\xff\xfe", "is UTF-16\nhint: convert it with `iconv -f UTF-16 -t UTF-8`"),
    (b"\xfe\xff", "is UTF-16\nhint: convert it with `iconv -f UTF-16 -t UTF-8`"),
    (b"SQLite format 3\0", "is an SQLite database"),
];
const TAR: (usize, &[u8]) = (257, b"ustar");

/// By the first bytes, unpacked.
pub(super) fn content(head: &[u8]) -> Content {
    if let Some((_, what)) = FORMATS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Content::Unusable(what);
    }
    if head.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1)) {
        return Content::Unusable("is a tar archive\nhint: unpack it with `tar -x`");
    }
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    match head.iter().find(|byte| !byte.is_ascii_whitespace() && **byte != 0) {
        Some(b'{' | b'[') => Content::Json,
        Some(_) => Content::Other,
        None => Content::Empty,
    }
}

/// By a look at the file, packed or not.
pub(super) fn look(path: &Path) -> io::Result<Content> {
    let mut file = BufReader::with_capacity(HEAD_BYTES, File::open(path)?);
    let mut head = Vec::new();
    if file.fill_buf()?.starts_with(&GZIP_MAGIC) {
        // What cannot be unpacked ends the look; reading it in earnest will tell.
        let _ = GzDecoder::new(file).take(HEAD_BYTES as u64).read_to_end(&mut head);
    } else {
        file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    }
    Ok(content(&head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_how_they_begin() {
        let check = |head: &[u8], expected: Content| assert_eq!(content(head), expected, "{head:?}");
        check(b"{\"a\":1}", Content::Json);
        check(b"\xef\xbb\xbf\r\n\0 [1]", Content::Json);
        check(b"09:00 Falco initialized", Content::Other);
        check(b" \n", Content::Empty);
        check(b"PK\x03\x04...", Content::Unusable("is a zip archive\nhint: unpack it with `unzip`"));
        let mut tar = vec![b'n'; 300];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(matches!(content(&tar), Content::Unusable(what) if what.contains("tar")));
        assert!(matches!(content(b"\xff\xfe{\0"), Content::Unusable(what) if what.contains("iconv")));
    }
}
