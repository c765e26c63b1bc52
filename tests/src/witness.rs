//! A server behind the edge that reads requests with a small parser of its own and remembers them: what a front door lets
//! through must not be judged by the library that let it through.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A request that has arrived whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The request line and the fields, without their ends.
    pub lines: Vec<String>,
    /// The body, without its coding.
    pub body: Vec<u8>,
}

impl Seen {
    /// The values of a field; names are written in small letters.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.lines.iter().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// Method and target, and the length of the body.
    pub fn summary(&self) -> String {
        let line = self.lines.first().map_or("", |line| line.trim_end_matches(" HTTP/1.1"));
        format!("{line} {}", self.body.len())
    }
}

/// A running witness; ends when dropped.
#[derive(Debug)]
pub struct Witness {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Witness {
    /// Starts on a free loopback port of the running runtime. It answers every request with 200 and two bytes.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&shared);
                // Whatever breaks a connection is the front door's business.
                tokio::spawn(async move { drop(serve(stream, &seen).await) });
            }
        });
        Ok(Self { address, seen, task })
    }

    /// What has arrived since this was asked last.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn serve(stream: TcpStream, all: &Mutex<Vec<Seen>>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut seen = Seen::default();
        loop {
            let line = line(&mut stream).await?;
            if line.is_empty() {
                break;
            }
            seen.lines.push(line);
        }
        // Both are read where both are there: the disagreement is the test's to see.
        let lengths = seen.values("content-length").into_iter().map(str::parse);
        for length in lengths.collect::<Result<Vec<usize>, _>>()? {
            seen.body = vec![0; length];
            stream.read_exact(&mut seen.body).await?;
        }
        if !seen.values("transfer-encoding").is_empty() {
            loop {
                let size = usize::from_str_radix(&line(&mut stream).await?, 16)?;
                let mut chunk = vec![0; size];
                stream.read_exact(&mut chunk).await?;
                seen.body.extend(chunk);
                let end = line(&mut stream).await?;
                anyhow::ensure!(end.is_empty(), "a chunk that does not end");
                if size == 0 {
                    break;
                }
            }
        }
        all.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    anyhow::ensure!(stream.read_line(&mut line).await? > 0, "the end");
    let line = line.strip_suffix("\r\n").ok_or_else(|| anyhow::anyhow!("a line without an end"))?;
    Ok(line.to_owned())
}
