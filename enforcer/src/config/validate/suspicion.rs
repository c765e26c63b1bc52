//! Rules for `[suspicion]`, and for what a `[[route]]` makes of it.

use std::{collections::BTreeMap, time::Duration};

use super::{LimitRules, Rules, attestation, entries, quote, routes::meant};
use crate::config::{
    RateLimit, Signal, Suspicion, SuspicionDemand,
    file::{AppSection, File, Key, ReportsSection, RouteSection, SuspicionSection, WeightsSection},
    suspicion::{App, Reports},
};

/// Where reports are taken unless told otherwise.
const PATH: &str = "/.well-known/enforcer/pin-reports";
/// By [`Signal::ALL`].
const WEIGHTS: [u8; 4] = [40, 10, 30, 30];
/// Fingerprints of an app: one for each system library, fresh and resumed.
const MOST_FINGERPRINTS: usize = 64;

const LIMIT: LimitRules = LimitRules {
    default: RateLimit { events: 10, period: Duration::from_secs(60), burst: 10 },
    may_be_off: false,
    least_burst: 1,
};

pub(super) fn suspicion(file: &File, rules: &mut Rules<'_, '_>) -> Option<Suspicion> {
    let section = file.suspicion.as_ref()?.get_ref();
    let mut rules = rules.section("suspicion");
    let weights = weights(&section.weights, &mut rules);
    let mut apps = BTreeMap::new();
    for (name, section) in &section.app {
        let prefix = rules.path(&format!("app.{}", quote(name)));
        let mut rules = rules.within(prefix, section.span());
        rules.name(name);
        apps.insert(name.clone(), app(section.get_ref(), &mut rules));
    }
    let reports = section.reports.as_ref().map(|section| {
        let prefix = rules.path("reports");
        reports(section.get_ref(), &mut rules.within(prefix, section.span()))
    });
    Some(Suspicion { weights, apps, reports })
}

fn weights(section: &Key<WeightsSection>, rules: &mut Rules<'_, '_>) -> [u8; 4] {
    let Some(section) = section else { return WEIGHTS };
    let WeightsSection { fingerprint, no_fingerprint, hops, reports } = section.get_ref();
    let mut weights = WEIGHTS;
    let written = [fingerprint, no_fingerprint, hops, reports];
    for ((weight, signal), value) in weights.iter_mut().zip(Signal::ALL).zip(written) {
        let key = format!("weights.{}", signal.name());
        let read = rules.number(&key, value, u64::from(*weight), 0..=100);
        *weight = u8::try_from(read).unwrap_or(100);
    }
    weights
}

fn app(section: &AppSection, rules: &mut Rules<'_, '_>) -> App {
    rules.not_empty(
        "ja4",
        &section.ja4,
        "list the fingerprints of the app's hellos; the access log shows them as `ja4`",
    );
    rules.distinct("ja4", entries(&section.ja4).map(|one| (one.span(), one.get_ref().0.text().to_owned())));
    if let Some(list) = section.ja4.as_ref().filter(|list| list.get_ref().len() > MOST_FINGERPRINTS) {
        let problem = format!("{} entries are too many", list.get_ref().len());
        let remedy = format!("list {MOST_FINGERPRINTS} at most; a part may be \"*\"");
        rules.refuse(list.span(), "ja4", problem, remedy);
    }
    App {
        platform: section.platform.as_ref().map(|platform| *platform.get_ref()),
        ja4: entries(&section.ja4).map(|one| one.get_ref().0.clone()).collect(),
    }
}

fn reports(section: &ReportsSection, rules: &mut Rules<'_, '_>) -> Reports {
    let mut path = PATH.to_owned();
    if let Some(value) = &section.path {
        path.clone_from(&value.get_ref().0);
        if !attestation::is_endpoint(&path) {
            let problem = format!("`{}` is no path of one endpoint", path.escape_debug());
            rules.refuse(value.span(), "path", problem, attestation::ENDPOINT);
        }
    }
    let hour = Duration::from_secs(3_600);
    let most = rules.number("max_entries", &section.max_entries, 65_536, 16..=4_194_304);
    Reports {
        path,
        remember: rules.duration("remember", &section.remember, hour, 60_000..=604_800_000),
        limit: rules.limit("limit", &section.limit, LIMIT).unwrap_or(LIMIT.default),
        max_entries: u32::try_from(most).unwrap_or(u32::MAX),
    }
}

/// What a route makes of it.
pub(super) fn of_route(
    section: &RouteSection,
    file: &File,
    rules: &mut Rules<'_, '_>,
) -> Option<SuspicionDemand> {
    let written = section.suspicion.as_ref()?;
    let demand = written.get_ref();
    let Some(by) = &file.suspicion else {
        let problem = "there is no [suspicion]: nothing says what weighs how much";
        rules.refuse(written.span(), "suspicion", problem, "add the section, or remove the key");
        return None;
    };
    let by = by.get_ref();
    let mut rules = rules.within(rules.path("suspicion"), written.span());
    if let Some(list) = demand.apps.as_ref().filter(|list| list.get_ref().is_empty()) {
        rules.refuse(list.span(), "apps", "empty", "name one, or remove the key to leave fingerprints alone");
    }
    let apps = rules.texts("apps", &demand.apps);
    for (entry, name) in entries(&demand.apps).zip(&apps) {
        if !by.app.contains_key(name) && !rules.errors.knows_section("suspicion.app", &quote(name)) {
            let problem = format!("there is no [suspicion.app.{}]", quote(name));
            rules.refuse_entry(entry.span(), "apps", problem, meant(name, &by.app));
        }
    }
    let refuse_above = demand.refuse_above.as_ref().map(|value| {
        let above = rules.number("refuse_above", &demand.refuse_above, 0, 0..=99);
        let most = reachable(by, !apps.is_empty());
        if above >= most && above <= 99 {
            let problem = format!("no request can come to more than {most} here, so none would be refused");
            let remedy = "write less, raise `suspicion.weights`, name `apps`, or remove the key";
            rules.refuse(value.span(), "refuse_above", problem, remedy);
        }
        u8::try_from(above).unwrap_or(99)
    });
    let dry_run = demand.dry_run.as_ref().is_some_and(|wanted| *wanted.get_ref());
    if let Some(value) = demand.dry_run.as_ref().filter(|_| dry_run && refuse_above.is_none()) {
        let remedy = "write `refuse_above` as well, or remove it";
        rules.refuse(value.span(), "dry_run", "nothing is refused here", remedy);
    }
    Some(SuspicionDemand { apps, refuse_above, dry_run })
}

/// The highest score that a route's requests can have.
fn reachable(by: &SuspicionSection, has_apps: bool) -> u64 {
    let read = |pick: fn(&WeightsSection) -> &Key<super::Number>, default: u8| {
        let written = by.weights.as_ref().and_then(|weights| pick(weights.get_ref()).as_ref());
        written.map_or(u64::from(default), |value| value.get_ref().0)
    };
    let [fingerprint, no_fingerprint, hops, reports] = WEIGHTS;
    // There is a fingerprint, or there is none.
    let fingerprint =
        read(|one| &one.fingerprint, fingerprint).max(read(|one| &one.no_fingerprint, no_fingerprint));
    let fingerprint = if has_apps { fingerprint } else { 0 };
    let reports = if by.reports.is_some() { read(|one| &one.reports, reports) } else { 0 };
    (fingerprint + read(|one| &one.hops, hops) + reports).min(100)
}
