//! Devices, as people read them.

use crate::{
    attestation::app_attest::Category,
    capture::moment,
    cli::table::{Align, grouped, table},
    control::wire::{DeviceRow, DevicesRow, HardwareRow},
};

pub(super) fn devices(page: &DevicesRow) -> String {
    let kept = if page.is_kept { "" } else { ", FORGOTTEN AT THE END (attestation.store is off)" };
    let refused = match page.refused {
        0 => String::new(),
        refused => format!(", {} REFUSED: there was no room", grouped(refused)),
    };
    let unreadable = match page.unreadable {
        0 => String::new(),
        rows => {
            format!(", {} REFUSED: what the store has of them cannot be understood", grouped(rows as u64))
        }
    };
    let overdue = match page.overdue {
        0 => String::new(),
        count => format!(", {} overdue to be forgotten", grouped(count as u64)),
    };
    let summary = format!(
        "devices: {} of {}, {} blocked{overdue}{kept}{refused}{unreadable}\n",
        grouped(page.devices as u64),
        grouped(page.most as u64),
        grouped(page.blocked as u64)
    );
    if page.rows.is_empty() {
        return summary;
    }
    let columns = [
        ("device", Align::Left),
        ("platform", Align::Left),
        ("level", Align::Left),
        ("app", Align::Left),
        ("version", Align::Left),
        ("patch", Align::Left),
        ("seen", Align::Left),
        ("status", Align::Left),
    ];
    let row = |row: &DeviceRow| {
        vec![
            row.device.clone(),
            row.platform.clone(),
            row.level.clone(),
            row.app.clone(),
            row.version.clone().unwrap_or_else(|| "-".to_owned()),
            patch(row.hardware.as_ref().and_then(|shown| shown.os_patch)),
            time(row.seen),
            status(row),
        ]
    };
    let rows = table(&columns, &page.rows.iter().map(row).collect::<Vec<_>>());
    let next = page.next.as_ref().map(|next| format!("more: --after {next}\n")).unwrap_or_default();
    format!("{summary}{rows}{next}")
}

pub(super) fn device(row: &DeviceRow) -> String {
    let mut text = format!(
        "device:      {}\nplatform:    {}\nlevel:       {}\nprovider:    {}, {}\napp:         {}\nenrolled:    {}\nseen:        {}\ncounter:     {}\n",
        row.device,
        row.platform,
        row.level,
        row.provider,
        row.environment,
        row.app,
        time(row.enrolled),
        time(row.seen),
        grouped(row.counter.into()),
    );
    if let Some(risk) = row.risk {
        text += &format!("risk:        {} keys attested within 30 days\n", grouped(risk.into()));
    }
    if let Some(version) = &row.version {
        text += &format!("version:     {version}\n");
    }
    if let Some(category) = row.category {
        text += &format!("category:    {}\n", Category(category));
    }
    if let Some(at) = row.verdict {
        text += &format!("verdict:     Google Play was asked {}\n", time(at));
    }
    if let Some(shown) = &row.hardware {
        text += &hardware(shown);
    }
    text + &format!("status:      {}\n", status(row))
}

fn hardware(shown: &HardwareRow) -> String {
    let locked = if shown.locked { "locked" } else { "UNLOCKED" };
    let above = shown.serials.get(1..).unwrap_or_default();
    format!(
        "key:         in {}, certificates from {}\nboot:        {}, {locked}, by {}\npatches:     system {}, vendor {}, boot loader {}\nserials:     {}\n",
        shown.security,
        if shown.provisioning == "remote" { "Google's servers" } else { "the factory" },
        shown.boot,
        shown.boot_key,
        patch(shown.os_patch),
        patch(shown.vendor_patch),
        patch(shown.boot_patch),
        above.join(" "),
    )
}

fn patch(level: Option<u32>) -> String {
    level.map_or_else(|| "-".to_owned(), |level| format!("{}-{:02}", level / 100, level % 100))
}

fn status(row: &DeviceRow) -> String {
    match (row.blocked_since, row.reason.as_str()) {
        (None, _) => match (&row.refused, &row.why) {
            (None, _) => "active".to_owned(),
            (Some(code), None) => format!("REFUSED: {code}"),
            (Some(code), Some(why)) => format!("REFUSED: {code}: {why}"),
        },
        (Some(since), "") => format!("BLOCKED since {}", time(since)),
        (Some(since), reason) => format!("BLOCKED since {}: {reason}", time(since)),
    }
}

fn time(unix: u64) -> String {
    // Whole seconds, which is all that is known.
    moment::timestamp(unix.saturating_mul(1_000_000_000)).replace(".000000000", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(device: &str, blocked_since: Option<u64>, reason: &str) -> DeviceRow {
        DeviceRow {
            device: device.into(),
            platform: "ios".into(),
            provider: "app-attest".into(),
            environment: "production".into(),
            app: "ABCDE12345.com.example.app".into(),
            level: "strong".into(),
            counter: 1_234,
            enrolled: 1_800_000_000,
            seen: 1_800_000_000,
            risk: Some(3),
            blocked_since,
            reason: reason.into(),
            version: Some("4.2".into()),
            ..DeviceRow::default()
        }
    }

    #[test]
    fn a_page_says_how_many_there_are_and_where_the_next_one_begins() {
        let page = DevicesRow {
            devices: 2_001,
            blocked: 1,
            most: 1_000_000,
            is_kept: true,
            unreadable: 2,
            overdue: 3,
            rows: vec![row("A", None, ""), row("B", Some(1_800_000_000), "stolen")],
            next: Some("B".into()),
            ..DevicesRow::default()
        };
        assert_eq!(
            devices(&page),
            "devices: 2,001 of 1,000,000, 1 blocked, 3 overdue to be forgotten, 2 REFUSED: what the store has of them cannot be understood\n\
             DEVICE  PLATFORM  LEVEL   APP                         VERSION  PATCH  SEEN                  STATUS\n\
             A       ios       strong  ABCDE12345.com.example.app  4.2      -      2027-01-15T08:00:00Z  active\n\
             B       ios       strong  ABCDE12345.com.example.app  4.2      -      2027-01-15T08:00:00Z  BLOCKED since 2027-01-15T08:00:00Z: stolen\n\
             more: --after B\n"
        );
        let text = device(&page.rows[1]);
        assert!(text.contains("3 keys attested") && text.ends_with("Z: stolen\n"), "{text}");
        let mut android = DeviceRow {
            verdict: Some(1_800_000_000),
            category: Some(4),
            hardware: Some(HardwareRow {
                security: "trusted_environment".into(),
                boot: "verified".into(),
                boot_key: "0101".into(),
                locked: true,
                os_patch: Some(202_511),
                vendor_patch: None,
                boot_patch: Some(202_501),
                provisioning: "remote".into(),
                serials: vec!["1".into(), "9f".into(), "c0de".into()],
            }),
            ..row("A", None, "")
        };
        android.refused = Some("attestation_revoked".into());
        android.why = Some("the certificate 9f is revoked: REVOKED, KEY_COMPROMISE".into());
        let text = device(&android);
        assert!(
            text.ends_with(
                "version:     4.2\n\
                 category:    4 (app-store)\n\
                 verdict:     Google Play was asked 2027-01-15T08:00:00Z\n\
                 key:         in trusted_environment, certificates from Google's servers\n\
                 boot:        verified, locked, by 0101\n\
                 patches:     system 2025-11, vendor -, boot loader 2025-01\n\
                 serials:     9f c0de\n\
                 status:      REFUSED: attestation_revoked: the certificate 9f is revoked: REVOKED, KEY_COMPROMISE\n"
            ),
            "{text}"
        );
    }
}
