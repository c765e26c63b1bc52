//! The program's counters as metrics, read from the kernel at each scrape.

use std::sync::Arc;

use anyhow::Result;
use prometheus::{
    IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tracing::warn;

use crate::kernel::{Count, EventCounts, Reason, View};

/// Registers `enforcer_kernel_packets_total` and `enforcer_kernel_bytes_total`, both by `action`, `reason` and `interface`,
/// `enforcer_kernel_would_drop_packets_total` and `enforcer_kernel_would_drop_bytes_total` by `reason` and `interface`,
/// `enforcer_kernel_events_total{result}`, and `enforcer_kernel_attached{interface}`.
pub fn register(registry: &Registry, view: Arc<dyn View>) -> Result<()> {
    let families = families()?;
    registry.register(Box::new(Kernel { view, descriptions: families, attached: attached()? }))?;
    Ok(())
}

/// Packets, bytes, the same of dry runs, events.
type Families = [IntCounterVec; 5];

struct Kernel {
    view: Arc<dyn View>,
    descriptions: Families,
    attached: IntGaugeVec,
}

impl Collector for Kernel {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().flat_map(Collector::desc).chain(self.attached.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(families) = families() else { return Vec::new() };
        let [packets, bytes, would_packets, would_bytes, events] = &families;
        match self.view.counters() {
            Ok(counters) => {
                for Count { interface, reason, counter } in &counters {
                    let (packets, bytes, labels) = match reason {
                        Reason::Pass(_) | Reason::Drop(_) => {
                            (packets, bytes, &[reason.action(), reason.label(), interface.as_str()][..])
                        }
                        Reason::WouldDrop(_) => {
                            (would_packets, would_bytes, &[reason.label(), interface.as_str()][..])
                        }
                    };
                    packets.with_label_values(labels).inc_by(counter.packets);
                    bytes.with_label_values(labels).inc_by(counter.bytes);
                }
            }
            // The scrape shows the rest; absent counters are not zero.
            Err(error) => warn!(%error, "reading the kernel's counters"),
        }
        match self.view.event_counts() {
            Ok(Some(EventCounts { sampled, over_budget, ring_full })) => {
                events.with_label_values(&["sampled"]).inc_by(sampled);
                events.with_label_values(&["over_budget"]).inc_by(over_budget);
                events.with_label_values(&["ring_full"]).inc_by(ring_full);
            }
            Ok(None) => {}
            Err(error) => warn!(%error, "reading the kernel's count of events"),
        }
        for one in self.view.attachments() {
            self.attached.with_label_values(&[one.interface.as_str()]).set(i64::from(one.is_attached()));
        }
        families.iter().flat_map(Collector::collect).chain(self.attached.collect()).collect()
    }
}

fn attached() -> Result<IntGaugeVec> {
    let help = "1: the program judges the packets of this interface; 0: nothing does";
    Ok(IntGaugeVec::new(Opts::new("enforcer_kernel_attached", help), &["interface"])?)
}

/// Made anew for each scrape: the truth lies in the kernel, nothing here adds up.
fn families() -> Result<Families> {
    let family = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
    let (by, dry) = (["action", "reason", "interface"], ["reason", "interface"]);
    Ok([
        family("enforcer_kernel_packets_total", "Packets by verdict, reason and interface", &by)?,
        family("enforcer_kernel_bytes_total", "Bytes by verdict, reason and interface", &by)?,
        family(
            "enforcer_kernel_would_drop_packets_total",
            "Packets that would have been dropped but for kernel.dry_run",
            &dry,
        )?,
        family(
            "enforcer_kernel_would_drop_bytes_total",
            "Bytes of packets that would have been dropped but for kernel.dry_run",
            &dry,
        )?,
        family(
            "enforcer_kernel_events_total",
            "Refused packets by whether they were shown to the daemon as a sample",
            &["result"],
        )?,
    ])
}
