//! What operators ask and say about devices. The time is an argument; nothing here waits.

use super::wire::{Answer, DeviceCommand, DeviceRow, DevicesRow, Done, Failure, FailureKind};
use crate::{
    enrolment::{Device, DeviceId, Registry},
    policy::Policy,
};

/// Devices of a page unless told otherwise, and at most.
const PAGE: usize = 100;
const MOST: usize = 10_000;
/// Bytes of a reason, at most.
const LONGEST: usize = 256;

/// Carries out a command.
pub fn carry_out(policy: &Policy, command: DeviceCommand, now: u64) -> Result<Answer, Failure> {
    let Some(attestation) = policy.attestation() else {
        return Err(refused("there is no [attestation]: no device can enrol".to_owned()));
    };
    let devices = &attestation.enrolment.devices;
    match command {
        DeviceCommand::List { after, most, blocked } => {
            let after = after.map(|text| named(&text)).transpose()?;
            let most = most.unwrap_or(PAGE).clamp(1, MOST);
            Ok(Answer::Devices(list(devices, after, most, blocked)))
        }
        DeviceCommand::Show { device } => {
            let id = named(&device)?;
            let known = devices.find(id).ok_or_else(|| unknown(id))?;
            Ok(Answer::Device(Box::new(row(id, &known))))
        }
        DeviceCommand::Block { device, reason } => {
            let id = named(&device)?;
            if reason.len() > LONGEST || reason.chars().any(char::is_control) {
                let text = format!("a reason has at most {LONGEST} bytes and no control characters");
                return Err(Failure::new(FailureKind::Malformed, text));
            }
            if !devices.block(id, &reason, now) {
                return Err(unknown(id));
            }
            tracing::info!(device = %id, reason, "the device is blocked");
            done(devices, format!("{id} is refused from now on, with every session that it has"))
        }
        DeviceCommand::Unblock { device } => {
            let id = named(&device)?;
            if devices.find(id).is_none() {
                return Err(unknown(id));
            }
            if !devices.unblock(id) {
                return Err(refused(format!("{id} is not blocked")));
            }
            tracing::info!(device = %id, "the device is blocked no longer");
            done(devices, format!("{id} is welcome again"))
        }
        DeviceCommand::Forget { device } => {
            let id = named(&device)?;
            let was = devices.find(id).is_some_and(|device| device.blocked.is_some());
            if !devices.forget(id) {
                return Err(unknown(id));
            }
            tracing::info!(device = %id, "the device is forgotten");
            let mut answer = done(devices, format!("{id} is forgotten: it has to enrol anew"));
            if let (Ok(Answer::Done(done)), true) = (&mut answer, was) {
                done.remarks.push("it was blocked, and can enrol again now".to_owned());
            }
            answer
        }
    }
}

fn list(devices: &Registry, after: Option<DeviceId>, most: usize, blocked: bool) -> DevicesRow {
    let look = devices.look();
    let page = devices.page(after, most, blocked);
    let next = page.rows.last().filter(|_| page.more).map(|(id, _)| id.to_string());
    DevicesRow {
        devices: look.devices,
        blocked: look.blocked,
        most: look.most,
        refused: look.refused,
        is_kept: look.is_kept,
        rows: page.rows.iter().map(|(id, device)| row(*id, device)).collect(),
        next,
    }
}

fn row(id: DeviceId, device: &Device) -> DeviceRow {
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
    }
}

fn done(devices: &Registry, message: String) -> Result<Answer, Failure> {
    let mut remarks = Vec::new();
    if !devices.look().is_kept {
        remarks.push("attestation.store is \"off\": devices are forgotten when the daemon ends".to_owned());
    }
    Ok(Answer::Done(Done { message, remarks, ban: None }))
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

fn unknown(id: DeviceId) -> Failure {
    refused(format!("no device {id} has enrolled here, or it was forgotten"))
}

fn refused(text: String) -> Failure {
    Failure::new(FailureKind::Refused, text)
}
