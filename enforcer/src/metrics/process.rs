//! What the daemon costs, read from the kernel at each scrape and for `status`.

use anyhow::Result;
use prometheus::{
    IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Resident memory of this process in bytes; 0 where `/proc` does not say.
pub fn resident_bytes() -> u64 {
    std::fs::read_to_string("/proc/self/status").ok().and_then(|text| vm_rss(&text)).unwrap_or(0)
}

/// `VmRSS` of a `/proc/PID/status`, which the kernel gives in KiB.
fn vm_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Registers `enforcer_build_info` and `process_resident_memory_bytes`.
pub fn register(registry: &Registry) -> Result<()> {
    let build = IntGaugeVec::new(Opts::new("enforcer_build_info", "Always 1"), &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(build))?;
    let resident = IntGauge::new("process_resident_memory_bytes", "Resident memory")?;
    registry.register(Box::new(Resident(resident)))?;
    Ok(())
}

struct Resident(IntGauge);

impl Collector for Resident {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.set(i64::try_from(resident_bytes()).unwrap_or(i64::MAX));
        self.0.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read() {
        assert_eq!(vm_rss("Name:\tx\nVmRSS:\t   12345 kB\nThreads:\t1\n"), Some(12_345 * 1024));
        assert_eq!(vm_rss("Name:\tx\n"), None);
        assert!(resident_bytes() > 100_000);
    }
}
