//! Which fingerprints come most often, in little room whatever clients send: where there is no room for a new one, it takes the place of
//! the rarest and goes on from its count (Metwally, Agrawal, El Abbadi: "Efficient computation of frequent and top-k elements in data
//! streams", 2005). So what comes often is always here, and a count is at most too high by that of the rarest.

/// Fingerprints that are kept.
const MOST: usize = 64;

/// A fingerprint that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// JA4.
    pub ja4: Box<str>,
    /// How often, at most.
    pub count: u64,
    /// The last time, seconds since 1970.
    pub last: u64,
}

/// The most frequent ones.
#[derive(Debug, Default)]
pub struct Seen(Vec<Sight>);

impl Seen {
    /// Counts one.
    pub fn note(&mut self, ja4: &str, now: u64) {
        if let Some(known) = self.0.iter_mut().find(|known| *known.ja4 == *ja4) {
            known.count += 1;
            known.last = now;
            return;
        }
        let new = |before: u64| Sight { ja4: ja4.into(), count: before + 1, last: now };
        if self.0.len() < MOST {
            self.0.push(new(0));
        } else if let Some(rarest) = self.0.iter_mut().min_by_key(|known| known.count) {
            *rarest = new(rarest.count);
        }
    }

    /// All, the most frequent ones first.
    pub fn all(&self) -> Vec<Sight> {
        let mut all = self.0.clone();
        all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.ja4.cmp(&b.ja4)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_often_is_not_washed_out_by_what_comes_once() {
        let mut seen = Seen::default();
        for n in 0..10_000 {
            seen.note("often", n);
            seen.note(&format!("once-{n}"), n);
        }
        let all = seen.all();
        assert_eq!((all.len(), &*all[0].ja4, all[0].count), (MOST, "often", 10_000));
        assert!(all[1].count < 300, "{:?}", all[1]);
    }
}
