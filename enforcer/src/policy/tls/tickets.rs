//! Session tickets (RFC 5077, RFC 8446 section 4.6.1): sealed here, opened here or by another node with the same keys.
//!
//! rustls asks in every handshake. Keys come from a file, or are drawn at random and change twice in a ticket's life; what a
//! key has sealed cannot be opened once the key is gone. Each ticket has a key of its own, derived with a random salt, so that
//! no number of tickets wears a shared key out. A ticket says when it was sealed, and is bound to what its client's
//! certificate was judged by: other roots or other revocations mean a new handshake.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use aws_lc_rs::{aead, digest, hkdf, rand};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::server::ProducesTickets;

use super::read;
use crate::{clock, secret::Secret};

/// Digest of what client certificates are judged by.
pub(super) type Trust = [u8; 32];

/// The one of a listener that asks for no certificate.
pub(super) const NO_CLIENTS: Trust = [0; 32];

/// Bytes by which a ticket names its key.
const NAME: usize = 16;
/// Bytes of the random salt of a ticket.
const SALT: usize = 16;
/// Bytes of the time of sealing, seconds since 1970.
const TIME: usize = 8;
/// Bytes of a drawn key, and the fewest of one in a file.
const DRAWN: usize = 48;
const FEWEST: usize = 32;
/// The most bytes of a key in a file; what is longer is no key.
const MOST: usize = 256;
/// Keys of a file: the one that seals, the next one, and those whose tickets are still about.
const MOST_KEYS: usize = 16;
/// How far the clocks of nodes may differ, seconds.
const SKEW: u64 = 300;
/// Says what the derived keys are for (RFC 5869 section 3.2).
const PURPOSE: &[&[u8]] = &[b"enforcer session ticket 1"];

/// Keys for tickets: the first one seals, all of them open.
#[derive(Debug)]
pub struct TicketKeys {
    keys: ArcSwap<Keys>,
    own: bool,
}

#[derive(Debug)]
struct Keys {
    /// Never empty.
    list: Vec<Arc<Key>>,
    /// When the first one was drawn, seconds since 1970.
    since: u64,
}

struct Key {
    name: [u8; NAME],
    secret: Secret<Vec<u8>>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    fn new(secret: Vec<u8>) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"enforcer session ticket key name");
        context.update(&secret);
        let mut name = [0; NAME];
        name.copy_from_slice(&context.finish().as_ref()[..NAME]);
        Self { name, secret: Secret::new(secret) }
    }

    fn draw() -> Result<Self> {
        let mut secret = vec![0; DRAWN];
        rand::fill(&mut secret).context("cannot draw a key for session tickets")?;
        Ok(Self::new(secret))
    }

    /// The key of one ticket.
    fn derive(&self, salt: &[u8]) -> Option<aead::LessSafeKey> {
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(self.secret.expose());
        let key = aead::UnboundKey::from(derived.expand(PURPOSE, &aead::AES_256_GCM).ok()?);
        Some(aead::LessSafeKey::new(key))
    }
}

/// Each key seals one ticket, so its nonce may be constant.
fn nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

impl TicketKeys {
    /// Keys that nobody else knows.
    pub fn own() -> Result<Self> {
        let list = vec![Arc::new(Key::draw()?)];
        Ok(Self { keys: ArcSwap::from_pointee(Keys { list, since: clock::unix_now() }), own: true })
    }

    /// The keys of a file: one per line, base64 of at least 32 bytes; `#` begins a comment.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = read::bytes(path, "ticket keys")?;
        let list = Self::parse(&bytes).with_context(|| path.display().to_string())?;
        Ok(Self { keys: ArcSwap::from_pointee(Keys { list, since: 0 }), own: false })
    }

    /// Whether they were drawn here.
    pub const fn is_own(&self) -> bool {
        self.own
    }

    fn parse(bytes: &[u8]) -> Result<Vec<Arc<Key>>> {
        let mut list: Vec<Arc<Key>> = Vec::new();
        for (n, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            // No error shows what the line holds.
            let secret = STANDARD.decode(line).ok().filter(|key| (FEWEST..=MOST).contains(&key.len()));
            let Some(secret) = secret else {
                bail!("line {} is not the base64 of {FEWEST} to {MOST} bytes", n + 1);
            };
            let key = Key::new(secret);
            if list.iter().any(|other| other.name == key.name) {
                bail!("line {} holds a key that stands above already", n + 1);
            }
            list.push(Arc::new(key));
        }
        if list.is_empty() || list.len() > MOST_KEYS {
            bail!("{} keys; there must be 1 to {MOST_KEYS}", list.len());
        }
        Ok(list)
    }

    /// Draws a new key when it is time: each seals for half a ticket's life, and opens for that long and a whole life.
    fn renew(&self, now: u64, lifetime: u64) {
        let keys = self.keys.load();
        let half = (lifetime / 2).max(1);
        if !self.own || now < keys.since.saturating_add(half) {
            return;
        }
        // Without randomness the old key goes on; there is no TLS then either.
        let Ok(drawn) = Key::draw() else { return };
        // After a pause longer than a life, what the old keys sealed has run out.
        let kept = if now > keys.since.saturating_add(lifetime + half) { 0 } else { 2 };
        let list = std::iter::once(Arc::new(drawn)).chain(keys.list.iter().take(kept).cloned()).collect();
        // Of several threads one wins; the others' keys have sealed nothing.
        self.keys.compare_and_swap(&keys, Arc::new(Keys { list, since: now }));
    }
}

/// Tickets of one listener.
#[derive(Debug)]
pub(super) struct Tickets {
    keys: Arc<TicketKeys>,
    lifetime: Duration,
    trust: Trust,
}

impl Tickets {
    pub(super) const fn new(keys: Arc<TicketKeys>, lifetime: Duration, trust: Trust) -> Self {
        Self { keys, lifetime, trust }
    }

    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        self.keys.renew(now, self.lifetime.as_secs());
        let keys = self.keys.keys.load();
        let key = keys.list.first()?;
        let mut salt = [0; SALT];
        rand::fill(&mut salt).ok()?;
        let mut ticket = Vec::with_capacity(NAME + SALT + TIME + plain.len() + aead::MAX_TAG_LEN);
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(&salt);
        ticket.extend_from_slice(&now.to_be_bytes());
        ticket.extend_from_slice(plain);
        let (_, sealed) = ticket.split_at_mut_checked(NAME + SALT)?;
        let tag = key.derive(&salt)?.seal_in_place_separate_tag(nonce(), aead::Aad::from(self.trust), sealed);
        ticket.extend_from_slice(tag.ok()?.as_ref());
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        self.keys.renew(now, self.lifetime.as_secs());
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (salt, sealed) = rest.split_at_checked(SALT)?;
        let keys = self.keys.keys.load();
        // The name is no secret.
        let key = keys.list.iter().find(|key| key.name == name)?;
        let mut sealed = sealed.to_vec();
        let plain =
            key.derive(salt)?.open_in_place(nonce(), aead::Aad::from(self.trust), &mut sealed).ok()?;
        let (time, plain) = plain.split_first_chunk::<TIME>()?;
        let sealed_at = u64::from_be_bytes(*time);
        let fresh =
            sealed_at <= now.saturating_add(SKEW) && now < sealed_at.saturating_add(self.lifetime.as_secs());
        fresh.then(|| plain.to_vec())
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, clock::unix_now())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, clock::unix_now())
    }
}

/// No session is ever resumed.
#[derive(Debug)]
pub(super) struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(100);

    fn of(keys: &Arc<TicketKeys>, trust: Trust) -> Tickets {
        Tickets::new(Arc::clone(keys), LIFE, trust)
    }

    fn shared(lines: &[&str]) -> Arc<TicketKeys> {
        let list = TicketKeys::parse(lines.join("\n").as_bytes()).unwrap();
        Arc::new(TicketKeys { keys: ArcSwap::from_pointee(Keys { list, since: 0 }), own: false })
    }

    fn line() -> String {
        let mut secret = [0; DRAWN];
        rand::fill(&mut secret).unwrap();
        STANDARD.encode(secret)
    }

    #[test]
    fn a_ticket_opens_where_it_was_sealed_and_nowhere_else() {
        let keys = Arc::new(TicketKeys::own().unwrap());
        let tickets = of(&keys, NO_CLIENTS);
        let ticket = tickets.seal(b"session", 1000).unwrap();
        assert_eq!(tickets.open(&ticket, 1000).as_deref(), Some(&b"session"[..]));
        assert_ne!(ticket, tickets.seal(b"session", 1000).unwrap());
        assert_eq!(of(&keys, [1; 32]).open(&ticket, 1000), None, "judged by other roots");
        assert_eq!(of(&Arc::new(TicketKeys::own().unwrap()), NO_CLIENTS).open(&ticket, 1000), None);
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert_eq!(tickets.open(&forged, 1000), None, "byte {at}");
            assert_eq!(tickets.open(&ticket[..at], 1000), None, "{at} bytes");
        }
    }

    #[test]
    fn a_ticket_lives_as_long_as_it_says_and_own_keys_change_meanwhile() {
        let keys = Arc::new(TicketKeys::own().unwrap());
        let tickets = of(&keys, NO_CLIENTS);
        let begin = clock::unix_now();
        let name = |ticket: &[u8]| ticket[..NAME].to_vec();
        let mut sealed = Vec::new();
        for step in 0..40 {
            let now = begin + step * 10;
            sealed.push((now, tickets.seal(b"x", now).unwrap()));
            for (at, ticket) in &sealed {
                let lives = now < at + LIFE.as_secs();
                assert_eq!(tickets.open(ticket, now).is_some(), lives, "sealed at {at}, now {now}");
            }
            assert!(keys.keys.load().list.len() <= 3);
        }
        let mut names: Vec<_> = sealed.iter().map(|(_, ticket)| name(ticket)).collect();
        names.dedup();
        assert!((7..=9).contains(&names.len()), "{} keys in 400 s", names.len());
    }

    #[test]
    fn nodes_with_a_common_file_open_each_others_tickets_while_keys_rotate() {
        let (old, new) = (line(), line());
        let before = of(&shared(&[&old]), NO_CLIENTS);
        let both = of(&shared(&["# rotated", &new, "", &old]), NO_CLIENTS);
        let after = of(&shared(&[&new]), NO_CLIENTS);
        let ticket = before.seal(b"x", 1000).unwrap();
        assert!(both.open(&ticket, 1001).is_some());
        assert!(after.open(&ticket, 1001).is_none(), "the key is gone");
        let ticket = both.seal(b"x", 1000).unwrap();
        assert!(after.open(&ticket, 1001).is_some(), "the first line seals");
        assert!(after.open(&ticket, 1100).is_none(), "too old");
        assert!(after.open(&ticket, 600).is_none(), "sealed in the future");
    }

    #[test]
    fn files_without_good_keys_are_refused_and_never_quoted() {
        let good = line();
        let short = STANDARD.encode([7; 31]);
        let many: Vec<String> = (0..=MOST_KEYS).map(|_| line()).collect();
        for (text, says) in [
            (String::new(), "0 keys"),
            ("# nothing\n".to_owned(), "0 keys"),
            (format!("{good}\nsecret!\n"), "line 2 is not the base64"),
            (short, "line 1 is not the base64"),
            (format!("{good}\n{good}\n"), "line 2 holds a key that stands above"),
            (many.join("\n"), "17 keys"),
        ] {
            let error = TicketKeys::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("secret!"), "{error}");
        }
    }
}
