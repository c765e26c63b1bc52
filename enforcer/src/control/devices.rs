//! What operators ask and say about devices. The time is an argument. What changes something waits for the disk, for a while.

use std::time::Duration;

use super::wire::{
    Answer, DeviceCommand, DeviceFilter, DeviceRow, DevicesRow, Done, Failure, FailureKind, HardwareRow,
};
use crate::{
    attestation::android_key::{chain::Provisioning, revocation},
    checks::devices::again,
    config::{Level, Platform, UnknownDevices},
    enrolment::{Device, DeviceId, Receipt, Registry, Wanted},
    policy::{Policy, attestation::Attestation},
    revoked::{FOREVER, Kind, Terms},
};

/// Devices of a page unless told otherwise, and at most.
const PAGE: usize = 100;
const MOST: usize = 10_000;
/// Bytes of a reason, at most.
const LONGEST: usize = 256;
/// Digits of a serial number, at most: RFC 5280 section 4.1.2.2 has 20 bytes, and makers have more.
const DIGITS: usize = 128;
/// How long an answer waits for the disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// Carries out a command, and waits until what it has changed is in the file; the answer says if it is not.
pub async fn answer(policy: &Policy, command: DeviceCommand, now: u64) -> Result<Answer, Failure> {
    let (mut answer, receipt) = carry_out(policy, command, now)?;
    if let Some(receipt) = receipt
        && !receipt.is_written(PATIENCE).await
        && let Answer::Done(done) = &mut answer
    {
        let remark = "it holds, and is NOT WRITTEN YET to attestation.store: a crash would undo it; see enforcer_device_store_pending and the log";
        done.remarks.push(remark.to_owned());
    }
    Ok(answer)
}

/// Carries out a command: what is said of it, and what becomes of it on its way to the disk.
pub fn carry_out(
    policy: &Policy,
    command: DeviceCommand,
    now: u64,
) -> Result<(Answer, Option<Receipt>), Failure> {
    let Some(attestation) = policy.attestation() else {
        return Err(refused("there is no [attestation]: no device can enrol".to_owned()));
    };
    let devices = &attestation.enrolment.devices;
    match command {
        DeviceCommand::List { after, most, blocked, only } => {
            let after = after.map(|text| named(&text)).transpose()?;
            let most = most.unwrap_or(PAGE).clamp(1, MOST);
            let page = list(attestation, after, most, &wanted(only, blocked)?);
            Ok((Answer::Devices(page), None))
        }
        DeviceCommand::Show { device } => {
            let id = named(&device)?;
            let known = devices.find(id).ok_or_else(|| unknown(devices, id))?;
            Ok((Answer::Device(Box::new(row(attestation, id, &known))), None))
        }
        DeviceCommand::Block { device, reason } => {
            let id = named(&device)?;
            plain(&reason)?;
            let receipt = devices.block(id, &reason, now).ok_or_else(|| unknown(devices, id))?;
            tracing::info!(device = %id, reason, "the device is blocked");
            let text = format!("{id} is refused from now on, with every session that it has");
            Ok((done(devices, text), Some(receipt)))
        }
        DeviceCommand::BlockAll { serial, reason, most } => {
            plain(&reason)?;
            let serial = number(&serial)?;
            let wanted = Wanted { serial: Some(serial.clone()), ..Wanted::default() };
            let (count, receipt) = devices.block_all(&wanted, (&reason, now), most).map_err(|count| {
                refused(format!(
                    "{count} devices have the certificate {serial} in their chain, more than {most}: nothing is blocked. Is it a root's, or a maker's? `device list --serial {serial}` shows them; `--most {count}` blocks them"
                ))
            })?;
            tracing::warn!(serial = &*serial, count, reason, "devices are blocked by a certificate");
            let text = match count {
                0 => {
                    format!("no device that is not blocked already has the certificate {serial} in its chain")
                }
                count => {
                    format!("{count} devices are refused from now on, with every session that they have")
                }
            };
            let mut answer = done(devices, text);
            if let Answer::Done(done) = &mut answer {
                let remark = "others with that certificate can enrol, unless attestation.android_key.revocations lists it";
                done.remarks.push(remark.to_owned());
            }
            Ok((answer, Some(receipt)))
        }
        DeviceCommand::Unblock { device } => {
            let id = named(&device)?;
            devices.find(id).ok_or_else(|| unknown(devices, id))?;
            let receipt = devices.unblock(id).ok_or_else(|| refused(format!("{id} is not blocked")))?;
            tracing::info!(device = %id, "the device is blocked no longer");
            Ok((done(devices, format!("{id} is welcome again")), Some(receipt)))
        }
        DeviceCommand::Forget { device } => {
            let id = named(&device)?;
            let was = devices.find(id).is_some_and(|device| device.blocked.is_some());
            let receipt = devices.forget(id).ok_or_else(|| unknown(devices, id))?;
            tracing::info!(device = %id, "the device is forgotten");
            let mut answer = done(devices, format!("{id} is forgotten: it has to enrol anew"));
            if let Answer::Done(done) = &mut answer {
                if was {
                    done.remarks.push("it was blocked, and can enrol again now".to_owned());
                }
                done.remarks.extend(end_sessions(policy, attestation, id, now));
            }
            Ok((answer, Some(receipt)))
        }
    }
}

/// Where sessions of devices that are not known count, nobody would know any more that those of this one shall not: they are revoked until
/// the last of them has ended. What is odd about that.
fn end_sessions(policy: &Policy, attestation: &Attestation, id: DeviceId, now: u64) -> Option<String> {
    if attestation.config.unknown_devices != UnknownDevices::BySession {
        return None;
    }
    let second = |unix: u64| u32::try_from(unix).unwrap_or(FOREVER).min(FOREVER - 1);
    let lifetime = attestation.config.session_lifetime.as_secs();
    let terms = Terms {
        until: second(now.saturating_add(lifetime).saturating_add(1)),
        before: second(now.saturating_add(1)),
    };
    let mark = policy.revoked().marker().mark(Kind::Device, id.to_string().as_bytes());
    Some(match policy.revoked().revoke(mark, terms, now) {
        Ok(_) => format!(
            "its sessions, and tokens that name it and were issued so far, are revoked for {lifetime} s, as unknown_devices is \"by-session\""
        ),
        Err(_) => format!(
            "ITS SESSIONS GO ON for up to {lifetime} s: unknown_devices is \"by-session\", and revocation.max_entries has no room"
        ),
    })
}

fn list(attestation: &Attestation, after: Option<DeviceId>, most: usize, wanted: &Wanted) -> DevicesRow {
    let devices = &attestation.enrolment.devices;
    let look = devices.look();
    let page = devices.page(after, most, wanted);
    let next = page.rows.last().filter(|_| page.more).map(|(id, _)| id.to_string());
    DevicesRow {
        devices: look.devices,
        blocked: look.blocked,
        most: look.most,
        refused: look.refused,
        is_kept: look.is_kept,
        unreadable: look.unreadable,
        overdue: look.overdue,
        rows: page.rows.iter().map(|(id, device)| row(attestation, *id, device)).collect(),
        next,
    }
}

fn row(attestation: &Attestation, id: DeviceId, device: &Device) -> DeviceRow {
    let evidence = &device.evidence;
    let hardware = evidence.hardware.as_deref();
    let apple = evidence.distributed.as_deref();
    let version = evidence.play_version.or(hardware.map(|shown| shown.version));
    let version = version.map(|version| version.to_string());
    let found = again::judge(attestation, device).err().filter(|_| device.blocked.is_none());
    DeviceRow {
        device: id.to_string(),
        platform: device.platform.name().to_owned(),
        provider: device.provider.name().to_owned(),
        environment: device.environment.name().to_owned(),
        app: device.app.to_string(),
        level: device.level.name().to_owned(),
        counter: device.counter,
        enrolled: device.enrolled,
        seen: device.seen,
        risk: device.risk,
        blocked_since: device.blocked.as_ref().map(|blocked| blocked.since),
        reason: device.blocked.as_ref().map(|blocked| blocked.reason.to_string()).unwrap_or_default(),
        verdict: device.verdict,
        version: version.or_else(|| apple.and_then(|said| said.version.as_deref().map(str::to_owned))),
        category: apple.and_then(|said| said.category),
        hardware: hardware.map(|shown| HardwareRow {
            security: shown.security.name().to_owned(),
            boot: shown.boot.name().to_owned(),
            boot_key: shown.boot_key.to_string(),
            locked: shown.locked,
            os_patch: shown.os_patch,
            vendor_patch: shown.vendor_patch,
            boot_patch: shown.boot_patch,
            provisioning: match shown.provisioning {
                Provisioning::Factory => "factory".to_owned(),
                Provisioning::Remote => "remote".to_owned(),
            },
            serials: shown.serials.iter().map(ToString::to_string).collect(),
        }),
        refused: found.as_ref().map(|failed| failed.denial.code().to_owned()),
        why: found.and_then(|failed| failed.why).map(|why| why.why),
    }
}

fn wanted(only: DeviceFilter, blocked: bool) -> Result<Wanted, Failure> {
    let DeviceFilter { platform, level, app, serial, seen_before } = only;
    let platforms = [Platform::Ios, Platform::Android];
    let levels = [Level::Device, Level::Strong];
    let malformed = |text: &str| Failure::new(FailureKind::Malformed, text);
    let platform = platform.map(|text| {
        let one = platforms.into_iter().find(|one| one.name() == text);
        one.ok_or_else(|| malformed("a platform is ios or android"))
    });
    let level = level.map(|text| {
        let one = levels.into_iter().find(|one| one.name() == text);
        one.ok_or_else(|| malformed("a level is device or strong"))
    });
    Ok(Wanted {
        blocked,
        platform: platform.transpose()?,
        level: level.transpose()?,
        app,
        serial: serial.map(|text| number(&text)).transpose()?,
        seen_before,
    })
}

/// A serial number as lists have it; tools write colons between its bytes, and some 0x before it.
fn number(text: &str) -> Result<Box<str>, Failure> {
    let digits: String = text.trim_start_matches("0x").chars().filter(|c| *c != ':').collect();
    if digits.is_empty() || digits.len() > DIGITS || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        let text = "a serial number has hexadecimal digits, with colons or without, as `device show` and Google's list have it";
        return Err(Failure::new(FailureKind::Malformed, text));
    }
    Ok(revocation::normal(&digits))
}

fn plain(reason: &str) -> Result<(), Failure> {
    if reason.len() > LONGEST || reason.chars().any(char::is_control) {
        let text = format!("a reason has at most {LONGEST} bytes and no control characters");
        return Err(Failure::new(FailureKind::Malformed, text));
    }
    Ok(())
}

fn done(devices: &Registry, message: String) -> Answer {
    let mut remarks = Vec::new();
    if !devices.look().is_kept {
        remarks.push("attestation.store is \"off\": devices are forgotten when the daemon ends".to_owned());
    }
    Answer::Done(Done { message, remarks, ban: None })
}

fn named(text: &str) -> Result<DeviceId, Failure> {
    let problem = || {
        let text = text.get(..64).unwrap_or(text).escape_debug().to_string();
        Failure::new(
            FailureKind::Malformed,
            format!(
                "`{text}` names no device: write the 43 characters that `device list` and the access log show"
            ),
        )
    };
    DeviceId::parse(text).ok_or_else(problem)
}

fn unknown(devices: &Registry, id: DeviceId) -> Failure {
    if devices.is_unreadable(id) {
        return refused(format!(
            "what attestation.store has of {id} cannot be understood, so it is refused: `device forget` takes it out"
        ));
    }
    refused(format!("no device {id} has enrolled here, or it was forgotten"))
}

fn refused(text: String) -> Failure {
    Failure::new(FailureKind::Refused, text)
}
