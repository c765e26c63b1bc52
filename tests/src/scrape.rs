//! Reads what the metrics listener says, in the Prometheus text format.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{netns::Netns, poll};

/// For one answer of the metrics listener.
const PATIENCE: Duration = Duration::from_secs(5);

/// All samples of one scrape, by name and labels.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// As it came.
    pub text: String,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads the text format. Lines that are no samples do not matter.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self { text: text.to_owned(), samples: samples.collect() }
    }

    /// The sum over all series of `name` that carry every one of `labels`; 0 where there is none, as a counter begins.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let matching = self.samples.iter().filter(|(series, _)| {
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            found == name
                && labels.iter().all(|(key, value)| {
                    let label = format!("{key}=\"{value}\"");
                    rest.trim_end_matches('}').split(',').any(|l| l == label)
                })
        });
        matching.map(|(_, value)| *value).sum::<f64>() as u64
    }

    /// Packets that the program counted under this reason, passed or dropped.
    pub fn packets(&self, reason: &str) -> u64 {
        self.sum("enforcer_kernel_packets_total", &[("reason", reason)])
    }

    /// Denials of requests and connections with this code.
    pub fn denials(&self, code: &str) -> u64 {
        self.sum("enforcer_denials_total", &[("code", code)])
    }

    /// Connections that the daemon has accepted, whatever became of them.
    pub fn connections(&self) -> u64 {
        self.sum("enforcer_connections_total", &[])
    }
}

/// `GET path` inside a namespace; status and body.
pub fn get(netns: &Netns, address: SocketAddr, path: &str) -> Result<(u16, String)> {
    netns.enter(|| {
        let mut stream = TcpStream::connect_timeout(&address, poll::stretched(PATIENCE))?;
        stream.set_read_timeout(Some(poll::stretched(PATIENCE)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        if head.to_ascii_lowercase().contains("transfer-encoding") {
            bail!("{address}{path} answers in chunks, which this reader does not know");
        }
        Ok((status.context("no status")?, body.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_series_that_match() {
        let text = "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\nab{x=\"1\"} 9\nplain 5\n";
        let scrape = Scrape::parse(text);
        assert_eq!(scrape.sum("a", &[("x", "1")]), 7);
        assert_eq!(scrape.sum("a", &[("x", "1"), ("y", "3")]), 4);
        assert_eq!(scrape.sum("plain", &[]), 5);
        assert_eq!(scrape.sum("a", &[("x", "2")]), 0);
    }
}
