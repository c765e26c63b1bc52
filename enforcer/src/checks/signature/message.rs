//! HTTP Message Signatures (RFC 9421): which of a message's signatures counts, whether it covers what it has to, whether it is
//! fresh, and whether it is right.

use std::fmt;

use http::HeaderMap;
use sfv::{
    Dictionary, InnerList, KeyRef, ListEntry, Parser,
    visitor::{DictionaryVisitor, EntryVisitor},
};

use super::{
    Claimed,
    base::{self, Message},
    digest::Digests,
    is_recent,
};
use crate::{
    checks::{facts::RequestFacts, origin::Origin},
    denial::Denial,
    policy::signature::Signers,
};

/// Bytes of `Signature-Input`, `Signature` or `Content-Digest`, at most.
const MOST_BYTES: usize = 8 << 10;
/// Signatures of one message, at most: a client's, and those of a few parties in between.
const MOST: usize = 8;
/// What a body digests to.
const DIGEST: &str = "content-digest";

/// The signature that counts.
#[derive(Debug)]
pub(super) struct Signature {
    input: InnerList,
    bytes: Vec<u8>,
}

impl Signature {
    /// The one that has the tag of `signers`; without one, the only one.
    pub(super) fn read(signers: &Signers, headers: &HeaderMap) -> Result<Self, Denial> {
        if !headers.contains_key("signature-input") && !headers.contains_key("signature") {
            return Err(Denial::SignatureMissing);
        }
        let malformed =
            |denial| if denial == Denial::DigestMalformed { Denial::SignatureMalformed } else { denial };
        let inputs = dictionary(headers, "signature-input").map_err(malformed)?;
        let mut signatures = dictionary(headers, "signature").map_err(malformed)?;
        if inputs.len() > MOST {
            return Err(Denial::SignatureMalformed);
        }
        let wanted = signers.config.tag.as_deref();
        let mut found = None;
        for (label, input) in inputs {
            let ListEntry::InnerList(input) = input else { return Err(Denial::SignatureMalformed) };
            let tag = input.params.get("tag").and_then(|tag| tag.as_string()).map(|tag| tag.as_str());
            if (wanted.is_none() || tag == wanted) && found.replace((label, input)).is_some() {
                // Which of two would be believed?
                return Err(Denial::SignatureMalformed);
            }
        }
        let (label, input) = found.ok_or(Denial::SignatureMissing)?;
        match signatures.swap_remove(label.as_str()) {
            Some(ListEntry::Item(item)) => {
                let bytes = item.bare_item.as_byte_sequence().ok_or(Denial::SignatureMalformed)?.to_vec();
                Ok(Self { input, bytes })
            }
            Some(ListEntry::InnerList(_)) | None => Err(Denial::SignatureMalformed),
        }
    }

    /// Cheap questions first.
    pub(super) fn verify(
        &self,
        signers: &Signers,
        facts: &RequestFacts<'_>,
        origin: Option<&Origin>,
        now: u64,
    ) -> Result<Claimed<'_>, Denial> {
        let id = self.text("keyid")?.ok_or(Denial::SignatureIncomplete)?;
        let nonce = self.text("nonce")?.ok_or(Denial::SignatureIncomplete)?;
        let made = self.seconds("created")?.ok_or(Denial::SignatureIncomplete)?;
        let expires = self.seconds("expires")?;
        if !signers.config.components.iter().all(|name| self.covers(name)) {
            return Err(Denial::SignatureIncomplete);
        }
        if !is_recent(signers, made, now) || expires.is_some_and(|expires| expires <= now || expires < made) {
            return Err(Denial::SignatureStale);
        }
        let key = signers.key(id).ok_or(Denial::SignatureUnknownKey)?;
        // The algorithm is the key's; a signature may say so, but cannot choose (section 3.2, step 6).
        if self.text("alg")?.is_some_and(|alg| alg != key.algorithm()) {
            return Err(Denial::SignatureAlgorithm);
        }
        let message = Message {
            method: Some(facts.method.as_str()),
            scheme: origin.map(|origin| origin.scheme),
            authority: origin.map(|origin| origin.authority.as_str()),
            path: facts.target.path,
            query: facts.target.query,
            status: None,
            headers: facts.headers,
        };
        let base = base::build(&message, &self.input).ok_or(Denial::SignatureMalformed)?;
        if !key.is_signed(base.as_bytes(), &self.bytes) {
            return Err(Denial::SignatureBad);
        }
        let digests = self.covers(DIGEST).then(|| Digests::read(facts.headers)).transpose()?;
        Ok(Claimed { key: id, nonce, made, digests })
    }

    /// Whether a component is covered as a whole.
    fn covers(&self, name: &str) -> bool {
        let is = |item: &sfv::Item| {
            item.params.is_empty() && item.bare_item.as_string().is_some_and(|known| known.as_str() == name)
        };
        self.input.items.iter().any(is)
    }

    fn text(&self, name: &str) -> Result<Option<&str>, Denial> {
        let Some(value) = self.input.params.get(name) else { return Ok(None) };
        value.as_string().map(|text| Some(text.as_str())).ok_or(Denial::SignatureMalformed)
    }

    fn seconds(&self, name: &str) -> Result<Option<u64>, Denial> {
        let Some(value) = self.input.params.get(name) else { return Ok(None) };
        let seconds = value.as_integer().and_then(|seconds| u64::try_from(i64::from(seconds)).ok());
        seconds.map(Some).ok_or(Denial::SignatureMalformed)
    }
}

/// A field that is a dictionary (RFC 9651 section 3.2), in one line or more.
pub(super) fn dictionary(headers: &HeaderMap, name: &str) -> Result<Dictionary, Denial> {
    let lines = headers.get_all(name).iter().map(|value| value.to_str().ok()).collect::<Option<Vec<_>>>();
    let text = lines.ok_or(Denial::DigestMalformed)?.join(", ");
    if text.len() > MOST_BYTES {
        return Err(Denial::DigestMalformed);
    }
    parse_dictionary(&text).ok_or(Denial::DigestMalformed)
}

/// `None` also where a key stands twice: RFC 9651 takes the last one, and not everybody does.
pub(super) fn parse_dictionary(text: &str) -> Option<Dictionary> {
    Parser::new(text).parse_dictionary_with_visitor(Strict(Dictionary::new())).ok()
}

struct Strict(Dictionary);

/// A key stands twice.
#[derive(Debug)]
struct Twice;

impl fmt::Display for Twice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key stands twice")
    }
}

impl std::error::Error for Twice {}

impl<'de> DictionaryVisitor<'de> for Strict {
    type Out = Dictionary;
    type Error = Twice;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Twice> {
        if self.0.contains_key(key) {
            return Err(Twice);
        }
        match DictionaryVisitor::entry(&mut self.0, key) {
            Ok(entry) => Ok(entry),
            Err(never) => match never {},
        }
    }

    fn finish(self) -> Result<Dictionary, Twice> {
        Ok(self.0)
    }
}
