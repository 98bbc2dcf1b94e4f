//! Digests and encodings of several parts: each part is preceded by its length, so that no two lists of parts give
//! the same bytes.

use ring::digest::{Context, SHA256, digest};

/// SHA-256 over parts, each preceded by its length.
pub struct DigestParts(Context);

impl DigestParts {
    #[expect(clippy::new_without_default, reason = "a digest of nothing is no default of anything")]
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub fn add(&mut self, part: &[u8]) {
        self.0.update(&length(part));
        self.0.update(part);
    }

    pub fn finish(self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }

    /// Returns the digest of these parts.
    pub fn of(parts: &[&[u8]]) -> [u8; 32] {
        let mut all = Self::new();
        parts.iter().for_each(|part| all.add(part));
        all.finish()
    }
}

/// Returns the SHA-256 digest of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// Returns the parts, each preceded by its length: the form in which several parts are authenticated
/// together.
pub fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&length(part), *part].concat()).collect()
}

/// Stored records are authenticated with this form, so it must not change.
fn length(part: &[u8]) -> [u8; 8] {
    (part.len() as u64).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_concatenate_equally_differ() {
        let lists: [&[&[u8]]; 5] =
            [&[b"ab", b"c"], &[b"a", b"bc"], &[b"abc"], &[b"abc", b""], &[b"", b"abc"]];
        for (index, one) in lists.iter().enumerate() {
            for other in &lists[index + 1..] {
                assert_ne!(DigestParts::of(one), DigestParts::of(other), "{one:?} {other:?}");
                assert_ne!(joined(one), joined(other), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn the_form_is_what_is_on_disks() {
        assert_eq!(joined(&[b"ab", b""]), [0, 0, 0, 0, 0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 0]);
        let digest = hex::encode(DigestParts::of(&[b"ab", b""]));
        assert_eq!(digest, hex::encode(ring::digest::digest(&SHA256, &joined(&[b"ab", b""]))));
    }
}
