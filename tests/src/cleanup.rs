//! Whatever a run makes outside its own memory, and how all of it goes away again.
//!
//! Processes, namespaces and directories are entered here before they exist and leave when their owner is dropped. SIGINT,
//! SIGTERM and SIGHUP empty the whole register before the run ends; what a killed run left behind is found by the process
//! id in its name. Nothing is ended or removed that is not in the register or named after a dead run.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How every name begins that a run gives to a namespace or a directory.
const MARK: &str = "enf";

static REGISTER: Mutex<Register> = Mutex::new(Register { next: 1, things: Vec::new() });
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static WATCH: Once = Once::new();

struct Register {
    next: u64,
    things: Vec<(u64, Thing)>,
}

#[derive(Clone, Debug)]
enum Thing {
    Process(i32),
    Namespace(String),
    Directory(PathBuf),
}

/// Removes one thing when dropped.
#[derive(Debug)]
pub struct Owned(u64);

impl Owned {
    /// Enters a namespace that is about to be made.
    pub fn namespace(name: &str) -> Self {
        own(&mut register(), Thing::Namespace(name.to_owned()))
    }

    /// Makes a private directory for this run.
    pub fn directory() -> Result<(Self, PathBuf)> {
        let mut register = register();
        let path = std::env::temp_dir().join(name("dir", register.next));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok((own(&mut register, Thing::Directory(path.clone())), path))
    }

    /// Starts a process in a process group of its own, so that Ctrl-C reaches this run alone and the order of things
    /// stays ours.
    pub fn process(command: &mut Command) -> Result<(Self, Child)> {
        use std::os::unix::process::CommandExt;
        let mut register = register();
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let owned = own(&mut register, Thing::Process(child.id() as i32));
        Ok((owned, child))
    }

    /// Leaves the register without touching the thing: it is gone already.
    pub fn forget(&mut self) {
        register().things.retain(|(id, _)| *id != self.0);
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let mut register = register();
        if let Some(at) = register.things.iter().position(|(id, _)| *id == self.0) {
            let (_, thing) = register.things.remove(at);
            drop(register);
            remove(&thing);
        }
    }
}

/// A name for a thing of this run: mark, process id, what it is, number.
pub fn name(what: &str, number: u64) -> String {
    format!("{MARK}-{}-{what}{number}", std::process::id())
}

/// Removes what runs left behind that are no longer alive.
pub fn sweep() {
    for name in namespaces().into_iter().filter(|name| is_orphan(name)) {
        remove(&Thing::Namespace(name));
    }
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_orphan) {
            remove(&Thing::Directory(entry.path()));
        }
    }
}

/// Waits for the end of this process, if a signal has begun it: what is observed now is only how things vanish.
pub fn rest_if_interrupted() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Names of all things that this run has made and that still exist, for those who check that nothing is left.
pub fn leftovers() -> Vec<String> {
    let mine = format!("{MARK}-{}-", std::process::id());
    let directories = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let directories = directories.filter_map(|entry| entry.file_name().into_string().ok());
    namespaces().into_iter().chain(directories).filter(|name| name.starts_with(&mine)).collect()
}

fn register() -> MutexGuard<'static, Register> {
    WATCH.call_once(watch);
    REGISTER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn own(register: &mut Register, thing: Thing) -> Owned {
    let id = register.next;
    register.next += 1;
    register.things.push((id, thing));
    Owned(id)
}

/// Sweeps once, then waits for signals on a thread of its own. Returns when no signal can be missed any more.
fn watch() {
    sweep();
    let (ready, listening) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let code = runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
                signal(SignalKind::hangup()),
            ) else {
                return None;
            };
            let _ = ready.send(());
            tokio::select! {
                _ = interrupt.recv() => Some(130),
                _ = terminate.recv() => Some(143),
                _ = hangup.recv() => Some(129),
            }
        });
        if let Some(code) = code {
            INTERRUPTED.store(true, Ordering::SeqCst);
            let _ = writeln!(std::io::stderr(), "\ninterrupted: removing everything that this run has made");
            // Holding the lock to the end keeps the other threads from making anything new.
            let mut register = register();
            for (_, thing) in register.things.drain(..).rev() {
                remove(&thing);
            }
            std::process::exit(code);
        }
    });
    let _ = listening.recv();
}

/// Where a private directory has its BPF file system, if it has one. With it go its pins, and with them what they hold.
pub fn bpffs(directory: &Path) -> PathBuf {
    directory.join("bpf")
}

fn remove(thing: &Thing) {
    match thing {
        Thing::Process(pid) => end(*pid),
        Thing::Namespace(name) => {
            for pid in in_namespace(name) {
                end(pid);
            }
            ip(&["netns", "delete", name]);
        }
        Thing::Directory(path) => {
            // Not being a mount point is what most answer.
            let _ = nix::mount::umount2(&bpffs(path), nix::mount::MntFlags::MNT_DETACH);
            drop(fs::remove_dir_all(path));
        }
    }
}

/// Everything in a namespace of ours was started by us, directly or not.
fn in_namespace(name: &str) -> Vec<i32> {
    let own = std::process::id() as i32;
    let pids = ip(&["netns", "pids", name]);
    pids.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid != own).collect()
}

fn end(pid: i32) {
    // An id that no longer exists is what we want.
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    let _ = nix::sys::wait::waitpid(Pid::from_raw(pid), None);
}

fn namespaces() -> Vec<String> {
    let listed = ip(&["netns", "list"]);
    listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn is_orphan(name: &str) -> bool {
    let mut parts = name.splitn(3, '-');
    parts.next() == Some(MARK)
        && parts.next().and_then(|pid| pid.parse::<u32>().ok()).is_some_and(|pid| {
            pid != std::process::id() && !Path::new("/proc").join(pid.to_string()).exists()
        })
}

fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_lives_as_long_as_its_owner() {
        let (owned, path) = Owned::directory().unwrap();
        assert!(path.is_dir() && leftovers().iter().any(|name| path.ends_with(name)));
        drop(owned);
        assert!(!path.exists());
    }

    #[test]
    fn a_process_ends_with_its_owner() {
        let (owned, mut child) = Owned::process(Command::new("sleep").arg("60")).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        drop(owned);
        assert!(!Path::new("/proc").join(child.id().to_string()).exists());
    }

    #[test]
    fn only_names_of_dead_runs_are_orphans() {
        assert!(!is_orphan(&name("dir", 1)), "this run lives");
        assert!(!is_orphan("enf-1-server1"), "so does process 1");
        assert!(!is_orphan("enforcer-4194999-x"), "another name");
        assert!(!is_orphan("enf-x-y"));
        // Above the largest process id of Linux, 2^22.
        assert!(is_orphan("enf-4194999-server1"));
    }
}
