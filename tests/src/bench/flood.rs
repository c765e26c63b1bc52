//! At which rate of a flood a legitimate HTTPS client begins to fail: with nothing in front of the service, with nftables,
//! and with the enforcer's program, all three with the same policy; and with a program that knows the flood's network by heart and
//! drops it, which no program on this wire can surpass.
//!
//! Everything happens in two namespaces with one wire, and is bounded in packets and in time. The service is the daemon's
//! own TLS end in all three cases. The sender runs on this machine too, so the figures are relative ones.

use std::{fs, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use enforcer::clock;
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::measure::{cpus, pin};
use crate::{
    bpf::{Code, Keys, Map, Program, XDP_PASS},
    netns::{Lab, SERVER_V4, WIRE, assert_inside, source_v4},
    packets::{SYN, TCP, ethernet, ipv4_with, tcp},
    process,
    scene::Scene,
};

/// Packets per second that are tried, one after the other.
const LADDER: [u32; 14] = [
    20_000, 50_000, 100_000, 200_000, 350_000, 500_000, 700_000, 1_000_000, 1_400_000, 2_000_000, 2_800_000,
    4_000_000, 6_000_000, 9_000_000,
];
/// Rates that are tried between the last one at which the client was served and the first at which it was not.
const HALVINGS: usize = 3;
/// No step sends more, whatever it is asked for.
const MOST: u64 = 60_000_000;
/// Runs of the sending program per call, most of which send nothing: about half a second, because each call begins and ends
/// with a wait for all CPUs.
const RUNS: u32 = 5_000_000;
/// What the sender may be late by and still make up for, in nanoseconds: less than fills the wire's queue at any rate.
const SLACK: u32 = 50_000;
/// Frames that the kernel sends at once, NAPI's budget.
const BATCH: u32 = 64;
/// Between two requests: well within the limit of one source.
const PAUSE: Duration = Duration::from_millis(150);
/// What a person waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// The flood's sources: two /24s with 256 addresses each, of which the second one is banned.
const SOURCES: u32 = 512;
const BASE: u32 = u32::from_be_bytes([198, 19, 0, 0]);
const BANNED: &str = "198.19.2.0/24";
/// Real-time priorities: a sender that nothing here slows down, packets before programs, and both before other work.
const SENDER: u8 = 10;
const RECEIVER: u8 = 5;
const DAEMON: u8 = 4;
/// For commands that only configure.
const SETUP: Duration = Duration::from_secs(20);

/// How long is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Scale {
    /// Seconds per rate.
    #[arg(long, default_value_t = 4)]
    pub seconds: u32,
    /// Of a hundred requests so many must be answered within a second.
    #[arg(long, default_value_t = 95)]
    pub percent: u32,
    /// The first rate of the ladder that is tried, in packets per second.
    #[arg(long, default_value_t = 0)]
    pub from: u32,
    /// What is measured; all, if nothing is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub guards: Vec<Guard>,
}

/// What stands in front of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Guard {
    /// The network stack as it is.
    Nothing,
    /// A set of banned prefixes and two dynamic sets with limits, in the ingress hook of the interface.
    Nftables,
    /// The program.
    Enforcer,
    /// A program of nine instructions that drops the flood's network: what the wire itself costs.
    Least,
}

/// One rate.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Step {
    /// Packets per second that were asked for.
    pub asked: u32,
    /// Packets per second that the sender managed.
    pub sent: f64,
    /// Nanoseconds that the server's receiving thread has worked, by packets sent: what does not fit into a second is lost.
    pub cost: f64,
    /// Requests that were answered in time.
    pub answered: u32,
    /// Requests.
    pub requests: u32,
}

/// What came of one guard.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Outcome {
    /// Which.
    pub guard: Guard,
    /// The highest rate at which the client was still served.
    pub held: f64,
    /// The rate at which it was not; `None`: the sender could not send more.
    pub failed: Option<f64>,
    /// Everything that was tried.
    pub steps: Vec<Step>,
}

impl Outcome {
    /// What a packet cost the server at the highest rate at which the client was served, in nanoseconds of its receiving thread.
    pub fn cost(&self) -> f64 {
        self.steps.iter().find(|step| (step.sent - self.held).abs() < 0.5).map_or(0.0, |step| step.cost)
    }
}

/// Measures one guard after the other, calling `told` after each rate.
pub fn run(scale: &Scale, told: impl Fn(Guard, &Step)) -> Result<Vec<Outcome>> {
    ensure!((1..=20).contains(&scale.seconds), "--seconds must be 1 to 20");
    [Guard::Nothing, Guard::Nftables, Guard::Enforcer, Guard::Least]
        .into_iter()
        .filter(|guard| scale.guards.is_empty() || scale.guards.contains(guard))
        .map(|guard| climb(scale, guard, |step| told(guard, step)).with_context(|| format!("{guard:?}")))
        .collect()
}

fn climb(scale: &Scale, guard: Guard, told: impl Fn(&Step)) -> Result<Outcome> {
    let scene = Scene::new()?;
    // Answers to the flood go to the client's host, which drops them; nobody asks for 512 neighbours.
    scene.lab.server.ip(&format!("route add 198.19.0.0/16 via {}", source_v4(1)))?;
    let mut plan = scene.plan();
    if guard == Guard::Enforcer {
        plan.limits =
            "packets = { rate = \"1000/s\", burst = 2000 }\nconnections = { rate = \"10/s\", burst = 20 }\n"
                .to_owned();
    } else {
        plan.kernel = "mode = \"off\"\n".to_owned();
    }
    let daemon = scene.daemon(&plan)?;
    let mut bare = None;
    match guard {
        Guard::Enforcer => drop(daemon.say(&["ban", "add", BANNED, "--forever"])?),
        Guard::Nothing | Guard::Nftables | Guard::Least => {
            // Live frames reach a veth only if its receiving side has a program; the least of all is one that passes.
            let [first, second, ..] = BASE.to_be_bytes();
            let program = match guard {
                Guard::Least => Program::load(Code::default().drop_from([first, second]))?,
                Guard::Nothing | Guard::Nftables | Guard::Enforcer => Program::constant(XDP_PASS)?,
            };
            let index = interface(&scene.lab)?;
            bare = Some(scene.lab.server.enter(|| program.attach(index))?);
        }
    }
    if guard == Guard::Nftables {
        let file = scene.site.dir.join("rules.nft");
        fs::write(&file, rules())?;
        let mut nft = scene.lab.server.command("nft");
        process::run(nft.arg("-f").arg(&file), SETUP)?.success("nft")?;
    }
    let receivers = one_cpu(&scene.lab, daemon.id())?;
    let token = scene.site.token("read")?;
    let first = scene.get(source_v4(1), "/api/v1/x").token(&token).send()?;
    ensure!(first.status == 200, "without any flood: {first:?}");
    let frame = frame(&scene.lab)?;
    let mut outcome = Outcome { guard, held: 0.0, failed: None, steps: Vec::new() };
    let mut attempt = |asked: u32| -> Result<(bool, bool)> {
        let step = step(&scene, &token, &frame, asked, scale, &receivers)?;
        told(&step);
        outcome.steps.push(step);
        let served = step.answered * 100 >= step.requests * scale.percent;
        if served {
            outcome.held = outcome.held.max(step.sent);
        } else {
            outcome.failed = Some(outcome.failed.map_or(step.sent, |failed| failed.min(step.sent)));
        }
        // The sender is at its end: a higher rate would be the same one.
        Ok((served, step.sent < 0.6 * f64::from(asked)))
    };
    let (mut low, mut high) = (0, None);
    for asked in LADDER.into_iter().filter(|asked| *asked >= scale.from) {
        let (served, at_its_end) = attempt(asked)?;
        if !served {
            high = Some(asked);
            break;
        }
        low = asked;
        if at_its_end {
            break;
        }
    }
    if let Some(mut high) = high {
        for _ in 0..HALVINGS {
            let middle = low + (high - low) / 2;
            match attempt(middle)? {
                (true, _) => low = middle,
                (false, _) => high = middle,
            }
        }
    }
    drop(bare);
    Ok(outcome)
}

/// Floods at one rate for some seconds, and asks for pages meanwhile.
fn step(
    scene: &Scene,
    token: &str,
    frame: &[u8],
    asked: u32,
    scale: &Scale,
    receivers: &[i32],
) -> Result<Step> {
    let time = Duration::from_secs(scale.seconds.into());
    let lab = &scene.lab;
    let worked = working(receivers)?;
    thread::scope(|scope| {
        let sender = scope.spawn(move || lab.client.enter(|| flood(frame, asked, time)));
        let (mut answered, mut requests) = (0, 0);
        while !sender.is_finished() {
            let begun = clock::instant_now();
            let answer = scene.get(source_v4(1), "/api/v1/x").token(token).within(PATIENCE).send()?;
            answered += u32::from(answer.status == 200);
            requests += 1;
            thread::sleep(PAUSE.saturating_sub(begun.elapsed()));
        }
        let (packets, took) = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        let cost = (working(receivers)? - worked) as f64 / (packets as f64).max(1.0);
        Ok(Step { asked, sent: packets as f64 / took.as_secs_f64(), cost, answered, requests })
    })
}

/// Sends from the client's namespace; answers how many packets in which time.
fn flood(frame: &[u8], asked: u32, time: Duration) -> Result<(u64, Duration)> {
    assert_inside()?;
    if let Some(last) = cpus()?.last() {
        pin(*last)?;
    }
    urgent(nix::unistd::gettid().as_raw(), SENDER)?;
    let index = nix::net::if_::if_nametoindex(WIRE)?;
    let pace = Map::pace(clock::kernel_now().0)?;
    let mut code = Code::default();
    code.pace(&pace, 1_000_000_000 / u64::from(asked), SLACK);
    code.next_key(Keys::Kernel, SOURCES - 1).source(BASE).balance().redirect(index);
    let program = Program::load(&code)?;
    let begun = clock::instant_now();
    while begun.elapsed() < time && pace.sent()? < MOST {
        program.send(frame, RUNS, BATCH)?;
    }
    Ok((pace.sent()?, begun.elapsed()))
}

/// A SYN to the service as [`Code::balance`] wants it: checksums over zeros where it writes.
fn frame(lab: &Lab) -> Result<Vec<u8>> {
    let mut segment = tcp(443, SYN, &[]);
    segment[..2].fill(0);
    segment[4..12].fill(0);
    let mut pseudo = vec![0; 4];
    pseudo.extend(SERVER_V4.octets());
    pseudo.extend([0, TCP, 0, segment.len() as u8]);
    pseudo.extend(&segment);
    let sum = checksum(&pseudo);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut packet = ipv4_with([0; 4].into(), TCP, 0x4000, &[], &segment);
    packet[4..6].fill(0);
    packet[16..20].copy_from_slice(&SERVER_V4.octets());
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(crate::packets::IPV4, &packet);
    frame[..6].copy_from_slice(&hardware_address(lab)?);
    Ok(frame)
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Gives the server one CPU, for its packets and for its daemon: the receiving side of the wire gets a thread of its own
/// (Linux 5.12), which goes before the daemon as interrupts do. The sender is on the last CPU, so a server that is slow does
/// not slow it down, as on a real wire.
fn one_cpu(lab: &Lab, daemon: u32) -> Result<Vec<i32>> {
    let first = *cpus()?.first().context("no CPU")?;
    let before = receivers()?;
    let mut threaded = lab.server.command("sh");
    threaded.args(["-c", &format!("echo 1 > /sys/class/net/{WIRE}/threaded")]);
    process::run(&mut threaded, SETUP)?.success("a receiving thread")?;
    let own: Vec<i32> = receivers()?.into_iter().filter(|receiver| !before.contains(receiver)).collect();
    for receiver in &own {
        place(*receiver, first)?;
        urgent(*receiver, RECEIVER)?;
    }
    ensure!(!own.is_empty(), "the wire has no receiving thread");
    for thread in fs::read_dir(format!("/proc/{daemon}/task"))?.flatten() {
        let thread = thread.file_name().to_string_lossy().parse()?;
        place(thread, first)?;
        urgent(thread, DAEMON)?;
    }
    Ok(own)
}

/// Nanoseconds that threads have run so far (`/proc/PID/schedstat`).
fn working(threads: &[i32]) -> Result<u64> {
    let one = |thread: &i32| -> Result<u64> {
        let told = fs::read_to_string(format!("/proc/{thread}/schedstat"))?;
        Ok(told.split_whitespace().next().context("an empty schedstat")?.parse()?)
    };
    threads.iter().map(one).sum()
}

/// The receiving threads of all wires of this name.
fn receivers() -> Result<Vec<i32>> {
    let named = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with(&format!("napi/{WIRE}"))
    };
    let all = fs::read_dir("/proc")?.flatten();
    Ok(all.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).filter(named).collect())
}

fn place(thread: i32, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    // One that has ended meanwhile needs no place.
    match sched_setaffinity(Pid::from_raw(thread), &set) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("placing thread {thread}")),
    }
}

/// Puts a thread before whatever else the machine is doing, and before the other threads here of a lower priority.
fn urgent(thread: i32, priority: u8) -> Result<()> {
    let mut chrt = Command::new("chrt");
    chrt.args(["--fifo", "--pid", &priority.to_string(), &thread.to_string()]);
    process::run(&mut chrt, SETUP)?.success("chrt").map(drop)
}

fn link(lab: &Lab) -> Result<serde_json::Value> {
    let shown: serde_json::Value =
        serde_json::from_str(&lab.server.ip(&format!("-j link show dev {WIRE}"))?)?;
    Ok(shown[0].clone())
}

fn interface(lab: &Lab) -> Result<u32> {
    Ok(link(lab)?["ifindex"].as_u64().context("no interface index")? as u32)
}

fn hardware_address(lab: &Lab) -> Result<[u8; 6]> {
    let link = link(lab)?;
    let text = link["address"].as_str().context("no hardware address")?;
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<_>, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("`{text}` is no hardware address"))
}

/// The same policy for nftables, as early as it can be had.
fn rules() -> String {
    format!(
        "table netdev guard {{\n\
         set banned {{ type ipv4_addr; flags interval; elements = {{ {BANNED} }} }}\n\
         set packets {{ type ipv4_addr; flags dynamic; size 65536; timeout 60s; }}\n\
         set connections {{ type ipv4_addr; flags dynamic; size 65536; timeout 60s; }}\n\
         chain in {{\n\
         type filter hook ingress device {WIRE} priority 0; policy accept;\n\
         ip saddr @banned drop\n\
         update @packets {{ ip saddr limit rate over 1000/second burst 2000 packets }} drop\n\
         tcp flags & (syn | ack) == syn update @connections {{ ip saddr limit rate over 10/second burst 20 packets }} drop\n\
         }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_makes_the_sum_zero() {
        let mut header = ipv4_with([198, 18, 0, 7].into(), TCP, 0, &[], &[]);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&header), 0);
    }
}
