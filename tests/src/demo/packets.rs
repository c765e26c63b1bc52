//! Second act: packets. An old TLS version and a flood of connections end before the server's TCP answers them.

use std::{thread, time::Duration};

use anyhow::{Result, anyhow};

use super::{
    CONNECTIONS_AT_ONCE, CONNECTIONS_PER_SECOND, Stage,
    screen::{Observed, Screen},
    server_sockets, told,
};
use crate::{
    clients::{self, Handshake},
    flood::{Flood, Segment},
    netns::{SERVER_V4, source_v4},
};

const FLOOD: u32 = 20_000;
const FLOOD_PER_SECOND: u32 = 10_000;

pub(super) fn play(stage: &Stage<'_>, screen: &mut Screen) -> Result<()> {
    screen.chapter("Packets");
    screen.step(
        "A client that speaks only TLS 1.0",
        &format!("openssl s_client -tls1 from {}", source_v4(5)),
        "refused in XDP: the alert protocol_version at once, 0 bytes at the server's socket, counted as tls_version",
        || old_tls(stage),
    );
    screen.step(
        "The same client with TLS 1.2 and 1.3",
        &format!("openssl s_client -tls1_2, then -tls1_3, from {}", source_v4(5)),
        "both finish their handshake",
        || {
            let limit = Duration::from_secs(10);
            let shake =
                |version| clients::openssl(&stage.scene.lab.client, source_v4(5).into(), version, limit);
            let (old, new) = (shake("-tls1_2")?, shake("-tls1_3")?);
            let done = |shake: &Handshake, version: &str| *shake == Handshake::Done(version.to_owned());
            let text = format!("{}, then {}", spoken(&old), spoken(&new));
            Ok(Observed::new(done(&old, "TLSv1.2") && done(&new, "TLSv1.3"), text))
        },
    );
    let allowed = format!("{CONNECTIONS_PER_SECOND}/s, {CONNECTIONS_AT_ONCE} at once");
    screen.step(
        "A SYN flood from one address, while another one is served",
        &format!(
            "{FLOOD} SYNs from {} at {FLOOD_PER_SECOND}/s; good requests from {} meanwhile",
            source_v4(6),
            source_v4(1)
        ),
        &format!(
            "no more SYNs pass than the limit allows ({allowed}); every request of the other source is served"
        ),
        || flood(stage),
    );
    Ok(())
}

fn spoken(shake: &Handshake) -> String {
    match shake {
        Handshake::Done(version) => format!("handshake done with {version}"),
        Handshake::Refused(said) => {
            // OpenSSL wraps the words into numbers and places.
            let words = said.split(':').find(|part| part.contains("alert")).unwrap_or(said);
            format!("refused ({words})")
        }
        Handshake::Unanswered => "no answer".to_owned(),
    }
}

fn old_tls(stage: &Stage<'_>) -> Result<Observed> {
    let source = source_v4(5).into();
    let before = stage.daemon.scrape()?;
    let _link = stage.scene.lab.hear_answers()?;
    let shake = clients::openssl(&stage.scene.lab.client, source, "-tls1", Duration::from_secs(10))?;
    let after = stage.daemon.scrape()?;
    let received: u64 = server_sockets(stage, source)?.iter().sum();
    let dropped = after.packets("tls_version") - before.packets("tls_version");
    let alerted = matches!(&shake, Handshake::Refused(said) if said.contains("alert protocol version"));
    let good = received == 0 && dropped > 0 && alerted;
    let text = format!(
        "{dropped} refused as tls_version, {received} bytes at the server's socket; at the client: {}",
        spoken(&shake)
    );
    Ok(Observed::new(good, text))
}

fn flood(stage: &Stage<'_>) -> Result<Observed> {
    let token = stage.scene.site.token("read")?;
    let before = stage.daemon.scrape()?.packets("connection_limit");
    let flood = Flood {
        segment: Segment::Syn,
        from: source_v4(6).into(),
        sources: 1,
        to: SERVER_V4.into(),
        port: 443,
        count: FLOOD,
        per_second: Some(FLOOD_PER_SECOND),
    };
    let (sent, answers) = thread::scope(|scope| {
        let flood = scope.spawn(|| flood.send(&stage.scene.lab.client));
        let mut answers = Vec::new();
        while !flood.is_finished() && answers.len() < 8 {
            answers.push(stage.get(1, Some(&token)));
        }
        (flood.join(), answers)
    });
    let sent = sent.map_err(|_| anyhow!("the flood panicked"))??;
    let answers = answers.into_iter().collect::<Result<Vec<_>>>()?;
    let dropped = stage.daemon.scrape()?.packets("connection_limit") - before;
    let passed = u64::from(sent.packets).saturating_sub(dropped);
    // One more for the clock's tick, by which the window may seem longer to the program.
    let most = u64::from(CONNECTIONS_AT_ONCE)
        + (sent.took.as_secs_f64() * f64::from(CONNECTIONS_PER_SECOND)).ceil() as u64
        + 1;
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    let good = dropped > 0 && passed <= most && served == answers.len() && served > 0;
    let mut text = format!(
        "{passed} of {} SYNs passed in {:.1} s (at most {most} may), {dropped} dropped; {served} of {} requests served",
        sent.packets,
        sent.took.as_secs_f64(),
        answers.len()
    );
    if let Some(answer) = answers.iter().find(|answer| answer.status != 200) {
        text += &format!("; one was answered {}", told(answer));
    }
    Ok(Observed::new(good, text))
}
