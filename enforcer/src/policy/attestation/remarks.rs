//! What a good configuration of devices leaves open, for people: nothing of it is wrong, and all of it lets somebody in.

use super::Attestation;

/// Seconds after which a list of what Google has revoked is old: it changes every few days.
const OLD: u64 = 7 * 86_400;

/// A key of the configuration, what is odd about it, and what to do.
pub type Remark = (&'static str, String, &'static str);

impl Attestation {
    /// What is to be said at `now`, seconds since 1970.
    pub fn remarks(&self, now: u64) -> Vec<Remark> {
        let mut remarks = Vec::new();
        let mut test_root = |key| {
            let what = "another root than the maker's is trusted: whoever has its key makes genuine devices, which is for tests alone";
            remarks.push((key, what.to_owned(), "remove it where people's requests come in"));
        };
        if self.config.app_attest.as_ref().is_some_and(|one| one.root.is_some()) {
            test_root("attestation.app_attest.root");
        }
        if self.config.android_key.as_ref().is_some_and(|one| one.root.is_some()) {
            test_root("attestation.android_key.root");
        }
        if let Some(android_key) = &self.android_key {
            const KEY: &str = "attestation.android_key.revocations";
            const FETCH: &str =
                "fetch https://android.googleapis.com/attestation/status by a timer, and name the file";
            match android_key.listed {
                None => {
                    let what = "no list of revoked certificates: keys that have leaked make genuine devices, level \"strong\"";
                    remarks.push((KEY, what.to_owned(), FETCH));
                }
                Some(at) if now.saturating_sub(at) > OLD => {
                    let days = now.saturating_sub(at) / 86_400;
                    let what = format!(
                        "the list of revoked certificates is {days} days old: keys that have leaked since make genuine devices"
                    );
                    remarks.push((KEY, what, FETCH));
                }
                Some(_) => {}
            }
        }
        remarks
    }
}
