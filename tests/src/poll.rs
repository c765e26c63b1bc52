//! Waiting for a condition with a bound, instead of sleeping and hoping.

use std::{thread, time::Duration};

use anyhow::{Result, bail};
use enforcer::clock;

/// Between two looks: short against everything that is waited for.
const PAUSE: Duration = Duration::from_millis(5);

/// Names by how much longer everything may take than on a machine with CPUs of its own. `cargo xtask vm` sets it in guests
/// whose CPUs are emulated.
const PATIENCE: &str = "ENFORCER_TEST_PATIENCE";

/// `limit`, as long as it is on this machine: for whatever has to come, and only its absence takes that long.
pub fn stretched(limit: Duration) -> Duration {
    let factor = std::env::var(PATIENCE).ok().and_then(|factor| factor.parse().ok());
    limit * factor.unwrap_or(1)
}

/// Asks `probe` until it gives a value; fails with `what` after `limit`. An error of the probe ends the wait at once.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let limit = stretched(limit);
    let begun = clock::instant_now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if begun.elapsed() > limit {
            bail!("waited {} s in vain: {what}", limit.as_secs());
        }
        thread::sleep(PAUSE);
    }
}

/// `eventually!(10, "what is waited for", condition)?` waits at most ten seconds for a condition.
#[macro_export]
macro_rules! eventually {
    ($seconds:expr, $what:expr, $condition:expr) => {
        $crate::poll::until(&$what, std::time::Duration::from_secs($seconds), || {
            Ok(if $condition { Some(()) } else { None })
        })
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_at_the_first_success_and_at_the_bound() {
        let mut looks = 0;
        let found = until("three looks", Duration::from_secs(5), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
        let error = until::<()>("the impossible", Duration::ZERO, || Ok(None)).unwrap_err();
        assert!(error.to_string().contains("the impossible"));
        assert!(eventually!(1, "truth", looks == 3).is_ok());
    }
}
