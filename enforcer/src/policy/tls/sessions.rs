//! Sessions that are resumed once, on this node: what early data (0-RTT) needs against replay (RFC 8446 section 8.1).
//!
//! rustls puts a session in when a handshake ends and takes it out when its client comes back, so a second connection that
//! claims it finds nothing and has a full handshake, without early data. Sessions live in memory alone: whoever restarts
//! forgets them, and no copy can be replayed to another process. A reload keeps them.

use std::{fmt, sync::Arc, time::Duration};

use quick_cache::{UnitWeighter, sync::Cache};
use rustls::server::StoresServerSessions;

use crate::clock;

/// A session as rustls encodes it, and since when it is known, in seconds since 1970.
type Session = (Arc<[u8]>, u64);

/// Sessions by number; when there is no room the oldest give way.
pub struct Sessions {
    kept: Cache<Vec<u8>, Session>,
    most: u32,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("most", &self.most).finish_non_exhaustive()
    }
}

impl Sessions {
    /// Room for so many.
    pub fn new(most: u32) -> Self {
        // It grows as it fills: most nodes never remember as many as they may.
        let begin = most.min(256) as usize;
        let kept = Cache::with(begin, most.into(), UnitWeighter, Default::default(), Default::default());
        Self { kept, most }
    }

    /// How many there is room for.
    pub const fn most(&self) -> u32 {
        self.most
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

/// The sessions of listeners with early data.
#[derive(Debug)]
pub(super) struct Remembered {
    sessions: Arc<Sessions>,
    lifetime: u64,
}

impl Remembered {
    pub(super) const fn new(sessions: Arc<Sessions>, lifetime: Duration) -> Self {
        Self { sessions, lifetime: lifetime.as_secs() }
    }

    fn fresh(&self, (session, since): &Session, now: u64) -> Option<Vec<u8>> {
        (now < since.saturating_add(self.lifetime)).then(|| session.to_vec())
    }

    fn take_at(&self, key: &[u8], now: u64) -> Option<Vec<u8>> {
        // Under the lock of its part: of two connections one gets it.
        let (_, session) = self.sessions.kept.remove(key)?;
        self.fresh(&session, now)
    }
}

impl StoresServerSessions for Remembered {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.sessions.kept.insert(key, (value.into(), clock::unix_now()));
        true
    }

    /// For TLS 1.2, which has no early data.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.fresh(&self.sessions.kept.get(key)?, clock::unix_now())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.take_at(key, clock::unix_now())
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    fn remembered(most: u32) -> Remembered {
        Remembered::new(Arc::new(Sessions::new(most)), Duration::from_secs(100))
    }

    #[test]
    fn a_session_is_taken_once_and_not_when_it_is_old() {
        let store = remembered(64);
        assert!(store.put(vec![1], vec![7]) && store.put(vec![2], vec![8]));
        assert_eq!((store.get(&[1]), store.take(&[1])), (Some(vec![7]), Some(vec![7])));
        assert_eq!((store.take(&[1]), store.get(&[1])), (None, None));
        assert_eq!(store.take_at(&[2], clock::unix_now() + 100), None);
        assert_eq!(store.take(&[2]), None, "it is gone");
    }

    #[test]
    fn there_is_room_for_so_many() {
        let store = remembered(256);
        for number in 0..10_000u32 {
            store.put(number.to_be_bytes().to_vec(), vec![0; 200]);
        }
        let kept = store.sessions.len();
        assert!((128..=256).contains(&kept), "{kept}");
    }

    #[test]
    fn of_many_who_claim_one_session_one_gets_it() {
        let store = remembered(4_096);
        let got = AtomicU32::new(0);
        for number in 0..500u32 {
            store.put(number.to_be_bytes().to_vec(), vec![1]);
        }
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mine =
                        (0..500u32).filter(|number| store.take(&number.to_be_bytes()).is_some()).count();
                    got.fetch_add(mine as u32, Relaxed);
                });
            }
        });
        assert_eq!(got.into_inner(), 500);
    }
}
