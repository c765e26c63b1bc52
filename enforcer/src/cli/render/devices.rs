//! Devices, as people read them.

use crate::{
    capture::moment,
    cli::table::{Align, grouped, table},
    control::wire::{DeviceRow, DevicesRow},
};

pub(super) fn devices(page: &DevicesRow) -> String {
    let kept = if page.is_kept { "" } else { ", FORGOTTEN AT THE END (attestation.store is off)" };
    let refused = match page.refused {
        0 => String::new(),
        refused => format!(", {} REFUSED: there was no room", grouped(refused)),
    };
    let summary = format!(
        "devices: {} of {}, {} blocked{kept}{refused}\n",
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
        ("counter", Align::Right),
        ("seen", Align::Left),
        ("status", Align::Left),
    ];
    let row = |row: &DeviceRow| {
        vec![
            row.device.clone(),
            row.platform.clone(),
            row.level.clone(),
            row.app.clone(),
            grouped(row.counter.into()),
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
    text + &format!("status:      {}\n", status(row))
}

fn status(row: &DeviceRow) -> String {
    match (row.blocked_since, row.reason.as_str()) {
        (None, _) => "active".to_owned(),
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
        }
    }

    #[test]
    fn a_page_says_how_many_there_are_and_where_the_next_one_begins() {
        let page = DevicesRow {
            devices: 2_001,
            blocked: 1,
            most: 1_000_000,
            refused: 0,
            is_kept: true,
            rows: vec![row("A", None, ""), row("B", Some(1_800_000_000), "stolen")],
            next: Some("B".into()),
        };
        assert_eq!(
            devices(&page),
            "devices: 2,001 of 1,000,000, 1 blocked\n\
             DEVICE  PLATFORM  LEVEL   APP                         COUNTER  SEEN                  STATUS\n\
             A       ios       strong  ABCDE12345.com.example.app    1,234  2027-01-15T08:00:00Z  active\n\
             B       ios       strong  ABCDE12345.com.example.app    1,234  2027-01-15T08:00:00Z  BLOCKED since 2027-01-15T08:00:00Z: stolen\n\
             more: --after B\n"
        );
        let text = device(&page.rows[1]);
        assert!(text.contains("3 keys attested") && text.ends_with("Z: stolen\n"), "{text}");
    }
}
