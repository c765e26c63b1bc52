//! Many bans in one go: cut into requests of bounded size, answered one by one, and summed up.
//!
//! The command line cuts with [`parts`] and sums with [`Many::add`]; the daemon's answers are made by [`told`]. Each part is
//! carried out for itself, so that neither end holds more than one, and offences get their turn in between.

use ipnet::IpNet;

use super::wire::{Command, MAX_REQUEST, Many, RefusedRow};
use crate::{
    bans::{
        ledger::{Refused, Tally},
        record::Text,
    },
    prefix::Prefix,
};

/// What the prefixes of one request take at most, bytes: the rest is left to its other fields, of which a reason is the longest.
const PREFIX_BYTES: usize = MAX_REQUEST - 8 * 1024;

/// What an import asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ban them; the command says how, for all of them.
    Ban {
        /// How long; absent: as configured, unless `forever`.
        seconds: Option<u64>,
        /// Until lifted.
        forever: bool,
        /// Why.
        reason: String,
        /// However wide, whoever is inside.
        force: bool,
        /// Where the operator's own session comes from.
        own_address: Option<std::net::IpAddr>,
    },
    /// Lift the bans of exactly these.
    Lift,
}

/// The requests that ask `order` for all of `prefixes`; none if there are none.
pub fn parts<'a>(prefixes: &'a [Prefix], order: &'a Order) -> impl Iterator<Item = Command> + 'a {
    let mut rest = prefixes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let fits = |prefix: &&Prefix| {
            bytes += longest(prefix);
            bytes <= PREFIX_BYTES
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (part, others) = rest.split_at(count);
        rest = others;
        Some(request(part.to_vec(), order, !others.is_empty()))
    })
}

/// What a prefix takes at most in a request, bytes, with two quotation marks and a comma.
const fn longest(prefix: &Prefix) -> usize {
    match prefix.net() {
        IpNet::V4(_) => "\"255.255.255.255/32\",".len(),
        IpNet::V6(_) => "\"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128\",".len(),
    }
}

fn request(prefixes: Vec<Prefix>, order: &Order, more: bool) -> Command {
    match order {
        Order::Ban { seconds, forever, reason, force, own_address } => Command::BanAddMany {
            prefixes,
            seconds: *seconds,
            forever: *forever,
            // What is longer is not kept anyway.
            reason: Text::new(reason).as_str().to_owned(),
            force: *force,
            own_address: *own_address,
            more,
        },
        Order::Lift => Command::BanDelMany { prefixes, more },
    }
}

/// The answer for one part.
pub(super) fn told(tally: Tally, remarks: Vec<String>) -> Many {
    let row = |refused: Refused| RefusedRow {
        kind: refused.refusal.kind().to_owned(),
        count: refused.count as u64,
        first: refused.prefix,
        message: refused.refusal.to_string(),
    };
    Many {
        banned: tally.banned as u64,
        replaced: tally.replaced as u64,
        ineffective: tally.shadowed as u64,
        lifted: tally.lifted as u64,
        not_banned: tally.not_banned as u64,
        repeated: tally.repeated as u64,
        refused: tally.refused.into_iter().map(row).collect(),
        remarks,
    }
}

impl Many {
    /// Takes in the answer for another part of the same import.
    pub fn add(&mut self, part: Self) {
        self.banned += part.banned;
        self.replaced += part.replaced;
        self.ineffective += part.ineffective;
        self.lifted += part.lifted;
        self.not_banned += part.not_banned;
        self.repeated += part.repeated;
        for row in part.refused {
            match self.refused.iter_mut().find(|own| own.kind == row.kind) {
                Some(own) => own.count += row.count,
                None => self.refused.push(row),
            }
        }
        for remark in part.remarks {
            if !self.remarks.contains(&remark) {
                self.remarks.push(remark);
            }
        }
    }

    /// How many entries were refused.
    pub fn refusals(&self) -> u64 {
        self.refused.iter().map(|row| row.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::wire::{Request, VERSION};

    #[test]
    fn every_part_fits_a_request_and_all_of_them_are_all() {
        let v6 = |n: u16| format!("2001:db8:ffff:ffff:ffff:ffff:ffff:{n:x}").parse::<Prefix>();
        let prefixes: Vec<Prefix> = (0x1000..0x2000).filter_map(|n| v6(n).ok()).collect();
        let order = Order::Ban {
            seconds: Some(u64::MAX),
            forever: false,
            reason: "\"\u{10ffff}".repeat(1000),
            force: false,
            own_address: "2001:db8::1".parse().ok(),
        };
        let mut found = Vec::new();
        let mut last = true;
        for command in parts(&prefixes, &order) {
            let line = serde_json::to_vec(&Request { version: VERSION, command: command.clone() }).unwrap();
            assert!(line.len() < MAX_REQUEST, "{}", line.len());
            let Command::BanAddMany { prefixes, more, .. } = command else { panic!("{command:?}") };
            found.extend(prefixes);
            last = !more;
        }
        assert!(last && found == prefixes && found.len() == 0x1000);
        assert_eq!(parts(&[], &Order::Lift).count(), 0);
    }
}
