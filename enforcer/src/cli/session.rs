//! Where the operator's own session comes from, so that a ban cannot cut it by accident.
//!
//! `sshd` sets `SSH_CONNECTION`; `sudo` usually takes it away, so the environments of the parent processes are asked as well.

use std::net::IpAddr;

/// How far up the parents are followed: shell, sudo, tmux and the like.
const GENERATIONS: usize = 16;

/// The address of the SSH client behind this process, if there is one.
pub fn address() -> Option<IpAddr> {
    let own = std::env::var("SSH_CONNECTION").ok().and_then(|value| first_address(&value));
    own.or_else(|| {
        std::iter::successors(parent("self"), |pid| parent(pid)).take(GENERATIONS).find_map(|pid| {
            std::fs::read(format!("/proc/{pid}/environ")).ok().and_then(|bytes| in_environ(&bytes))
        })
    })
}

/// `SSH_CONNECTION` is `CLIENT PORT SERVER PORT` (sshd(8), ENVIRONMENT).
fn first_address(value: &str) -> Option<IpAddr> {
    // A link-local client has its zone appended.
    let address = value.split_whitespace().next()?.split('%').next()?;
    address.parse().ok()
}

fn in_environ(bytes: &[u8]) -> Option<IpAddr> {
    let value = bytes.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"SSH_CONNECTION="))?;
    first_address(std::str::from_utf8(value).ok()?)
}

fn parent(pid: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim();
    (parent != "0").then(|| parent.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_first_word() {
        assert_eq!(first_address("198.18.0.9 50022 198.18.0.1 22"), "198.18.0.9".parse().ok());
        assert_eq!(first_address("fe80::1%eth0 50022 fe80::2%eth0 22"), "fe80::1".parse().ok());
        assert_eq!(first_address(""), None);
        let environ = b"HOME=/\0SSH_CONNECTION=2001:db8::9 1 2001:db8::1 22\0A=b\0";
        assert_eq!(in_environ(environ), "2001:db8::9".parse().ok());
        assert_eq!(in_environ(b"HOME=/\0"), None);
        assert!(parent("self").is_some());
    }
}
