//! What a body must digest to: `Content-Digest` (RFC 9530).

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{Algorithm, SHA256, SHA512, digest},
};
use http::HeaderMap;

use super::message::dictionary;
use crate::denial::Denial;

/// Algorithms that count, by their names in the registry of RFC 9530 section 7.2. All others there are broken, and are not looked at:
/// one of these has to stand beside them.
const ALGORITHMS: [(&str, &Algorithm); 2] = [("sha-256", &SHA256), ("sha-512", &SHA512)];

/// At least one; all of them must be right.
#[derive(Debug)]
pub(super) struct Digests(Vec<(&'static Algorithm, Vec<u8>)>);

impl Digests {
    /// Of `Content-Digest`.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Denial> {
        let members = dictionary(headers, "content-digest")?;
        let mut digests = Vec::new();
        for (name, algorithm) in ALGORITHMS {
            let Some(member) = members.get(name) else { continue };
            let sfv::ListEntry::Item(item) = member else { return Err(Denial::DigestMalformed) };
            let bytes = item.bare_item.as_byte_sequence().ok_or(Denial::DigestMalformed)?;
            if bytes.len() != algorithm.output_len() {
                return Err(Denial::DigestMalformed);
            }
            digests.push((algorithm, bytes.to_vec()));
        }
        if digests.is_empty() { Err(Denial::DigestMalformed) } else { Ok(Self(digests)) }
    }

    /// One of SHA-256.
    pub(super) fn sha256(bytes: Vec<u8>) -> Self {
        Self(vec![(&SHA256, bytes)])
    }

    /// Whether they are those of `body`.
    pub(super) fn are_of(&self, body: &[u8]) -> bool {
        let right = |(algorithm, said): &(&'static Algorithm, Vec<u8>)| {
            verify_slices_are_equal(digest(algorithm, body).as_ref(), said).is_ok()
        };
        self.0.iter().all(right)
    }
}
