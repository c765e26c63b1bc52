//! `events` over the control socket: shows samples of refused packets to one caller until it goes.
//!
//! The server calls it once the caller is admitted. A caller that does not read loses samples and is told how many; it holds up
//! nobody else.

use std::sync::Arc;

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::broadcast::{Receiver, error::RecvError},
};

use super::wire::{Answer, EventRow, Failure, FailureKind};
use crate::{
    capture::{
        moment,
        sight::{self, Frame},
    },
    kernel::{Reason, events::Sample},
    prefix::Prefix,
};

/// Which samples a caller wants.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only this reason, by its label.
    pub reason: Option<String>,
    /// Only from here.
    pub source: Option<Prefix>,
    /// With the frames' bytes.
    pub frames: bool,
}

impl Wanted {
    /// Refuses reasons that do not exist: nobody should wait for them.
    pub fn check(&self) -> Result<(), Failure> {
        let Some(label) = &self.reason else { return Ok(()) };
        if Reason::all().any(|(reason, _)| reason.label() == label) {
            return Ok(());
        }
        let known: Vec<&str> = Reason::all()
            .filter(|(reason, _)| matches!(reason, Reason::Drop(_)))
            .map(|(reason, _)| reason.label())
            .collect();
        let text = format!("`{label}` is no reason; there are: {}", known.join(", "));
        Err(Failure::new(FailureKind::Refused, text))
    }

    /// The sample as it is told; `None` if it is not wanted.
    fn row(&self, sample: &Sample) -> Option<EventRow> {
        if self.reason.as_ref().is_some_and(|label| sample.reason.label() != label) {
            return None;
        }
        let sight = sight::look(Frame { bytes: &sample.bytes, length: sample.length });
        if let Some(prefix) = self.source
            && !sight.source.is_some_and(|address| prefix.contains(address))
        {
            return None;
        }
        Some(EventRow {
            time: moment::timestamp(sample.unix_ns),
            time_ns: sample.unix_ns,
            interface: sample.interface.clone(),
            cpu: sample.cpu,
            verdict: sample.reason.action().to_owned(),
            reason: sample.reason.label().to_owned(),
            sight,
            length: sample.length,
            captured: sample.bytes.len(),
            frame: self.frames.then(|| STANDARD.encode(&sample.bytes)),
        })
    }
}

/// The next thing to tell; `None` once the caller has gone or nothing more will come.
pub(super) async fn next<R: AsyncRead + Unpin>(
    samples: &mut Receiver<Arc<Sample>>,
    wanted: &Wanted,
    caller: &mut R,
) -> Option<Answer> {
    let mut nothing = [0; 1];
    loop {
        tokio::select! {
            received = samples.recv() => match received {
                Ok(sample) => {
                    if let Some(row) = wanted.row(&sample) {
                        return Some(Answer::Event(Box::new(row)));
                    }
                }
                Err(RecvError::Lagged(count)) => return Some(Answer::Lost(count)),
                Err(RecvError::Closed) => return None,
            },
            // Nothing more is expected from the caller; what it says nevertheless ends it like its end.
            _ = caller.read(&mut nothing) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enforcer_common::reason::DropReason;
    use tokio::sync::broadcast;

    fn sample(number: usize, reason: DropReason) -> Arc<Sample> {
        Arc::new(Sample {
            unix_ns: 0,
            interface: "eth0".into(),
            cpu: 0,
            reason: Reason::Drop(reason),
            length: number,
            bytes: vec![0; 14],
        })
    }

    #[tokio::test]
    async fn a_slow_caller_is_told_what_it_lost_and_holds_up_nobody() {
        let (sender, mut slow) = broadcast::channel(2);
        let mut quick = sender.subscribe();
        let (mut caller, _other_end) = tokio::io::duplex(1);
        let wanted = Wanted::default();
        for number in 0..5 {
            sender.send(sample(number, DropReason::Banned)).unwrap();
            let Some(Answer::Event(row)) = next(&mut quick, &wanted, &mut caller).await else { panic!() };
            assert_eq!(row.length, number);
        }
        assert!(matches!(next(&mut slow, &wanted, &mut caller).await, Some(Answer::Lost(3))));
        let Some(Answer::Event(row)) = next(&mut slow, &wanted, &mut caller).await else { panic!() };
        assert_eq!(row.length, 3);
    }

    #[tokio::test]
    async fn only_what_is_wanted_is_told_and_the_end_is_noticed() {
        let (sender, mut samples) = broadcast::channel(8);
        let (mut caller, other_end) = tokio::io::duplex(1);
        let wanted = Wanted { reason: Some("tls_version".into()), ..Wanted::default() };
        wanted.check().unwrap();
        assert!(Wanted { reason: Some("tls".into()), ..Wanted::default() }.check().is_err());
        sender.send(sample(1, DropReason::Banned)).unwrap();
        sender.send(sample(2, DropReason::TlsVersion)).unwrap();
        let Some(Answer::Event(row)) = next(&mut samples, &wanted, &mut caller).await else { panic!() };
        assert_eq!((row.length, row.reason.as_str(), row.frame), (2, "tls_version", None));
        let nobody = Wanted { source: "198.18.0.0/15".parse().ok(), ..Wanted::default() };
        sender.send(sample(3, DropReason::TlsVersion)).unwrap();
        drop(other_end);
        assert!(next(&mut samples, &nobody, &mut caller).await.is_none());
    }
}
