//! The program's counters as metrics, read from the kernel at each scrape.

use std::sync::Arc;

use anyhow::Result;
use prometheus::{
    IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tracing::warn;

use crate::kernel::{Reason, View};

const LABELS: [&str; 2] = ["action", "reason"];

/// Registers `enforcer_kernel_packets_total` and `enforcer_kernel_bytes_total`, both by `action` and `reason`, and
/// `enforcer_kernel_attached{interface}`.
pub fn register(registry: &Registry, view: Arc<dyn View>) -> Result<()> {
    let families = families()?;
    registry.register(Box::new(Kernel { view, descriptions: families, attached: attached()? }))?;
    Ok(())
}

impl Reason {
    /// `pass` or `drop`.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Drop(_) => "drop",
        }
    }

    /// The reason's own label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Pass(reason) => reason.label(),
            Self::Drop(reason) => reason.label(),
        }
    }
}

struct Kernel {
    view: Arc<dyn View>,
    descriptions: [IntCounterVec; 2],
    attached: IntGaugeVec,
}

impl Collector for Kernel {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().flat_map(Collector::desc).chain(self.attached.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok([packets, bytes]) = families() else { return Vec::new() };
        match self.view.counters() {
            Ok(counters) => {
                for (reason, counter) in counters {
                    let labels = [reason.action(), reason.label()];
                    packets.with_label_values(&labels).inc_by(counter.packets);
                    bytes.with_label_values(&labels).inc_by(counter.bytes);
                }
            }
            // The scrape shows the rest; absent counters are not zero.
            Err(error) => warn!(%error, "reading the kernel's counters"),
        }
        for one in self.view.attachments() {
            self.attached.with_label_values(&[one.interface.as_str()]).set(i64::from(one.is_attached()));
        }
        [packets, bytes].iter().flat_map(Collector::collect).chain(self.attached.collect()).collect()
    }
}

fn attached() -> Result<IntGaugeVec> {
    let help = "1: the program judges the packets of this interface; 0: nothing does";
    Ok(IntGaugeVec::new(Opts::new("enforcer_kernel_attached", help), &["interface"])?)
}

/// Made anew for each scrape: the truth lies in the kernel, nothing here adds up.
fn families() -> Result<[IntCounterVec; 2]> {
    let family = |name, help| IntCounterVec::new(Opts::new(name, help), &LABELS);
    Ok([
        family("enforcer_kernel_packets_total", "Packets by verdict and reason")?,
        family("enforcer_kernel_bytes_total", "Bytes by verdict and reason")?,
    ])
}
