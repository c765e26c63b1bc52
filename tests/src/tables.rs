//! What a packet case finds in the tables: in plain memory, and in the maps of the loaded program.

use enforcer::{
    config::Hellos,
    kernel::{listed_hellos, model::Model},
    prefix::Prefix,
};
use enforcer_common::{
    ban::{Ban, Listing},
    budget::{Scope, shared},
    flow::{
        self,
        slot::{self, Phase},
    },
    gcra::Rate,
    limiter::{self, RawBucket},
    port::Port,
    settings::{LIMITS, Limit, Settings, flag},
    source::SourceKey,
    verdict::Cookie,
};

/// The port that cases protect.
pub const PROTECTED: u16 = 443;
/// The port that cases manage the machine by.
pub const MANAGEMENT: u16 = 22;
/// The port where cases serve QUIC, over UDP; it is protected too, over TCP.
pub const QUIC: u16 = PROTECTED;
/// A protected port where nobody listens.
pub const UNHEARD: u16 = 8443;
/// What the listener on [`PROTECTED`] answers a SYN with in plain memory; in the kernel nobody can foretell it.
pub const COOKIE: Cookie = Cookie { made: true, sequence: 0xc00c_1e00 };

/// A debt for good.
const USED_UP: u64 = !limiter::BAN;

/// The state of the tables when the packet comes. One bucket per limit, so that a case can fill it.
#[derive(Clone, Debug)]
pub struct State {
    /// `None`: the daemon has written none yet.
    pub settings: Option<Settings>,
    /// What is known of ports.
    pub ports: Vec<(u16, Port)>,
    /// Exact bans.
    pub bans: Vec<(SourceKey, Ban)>,
    /// Exact bans for which the bucket had no room.
    pub spilled: Vec<(SourceKey, Ban)>,
    /// Listed prefixes.
    pub listed: Vec<(Prefix, Listing)>,
    /// Whether every slot of the flow table holds a flow that awaits the rest of its hello.
    pub crowded: bool,
    /// By [`Limit`].
    pub buckets: [RawBucket; LIMITS],
    /// The further budgets, in whichever bucket.
    pub budgets: RawBucket,
    /// Shared budgets of which nothing is left, by place.
    pub spent: Vec<u32>,
    /// What is listed of hellos.
    pub hellos: Vec<(u64, u32)>,
}

impl Default for State {
    /// Nothing listed, nothing limited, one protected port and one for management.
    fn default() -> Self {
        let settings = Settings::PERMISSIVE;
        let ports = vec![
            (UNHEARD, Port::PROTECTED),
            (PROTECTED, Port::PROTECTED.with(Port::QUIC)),
            (MANAGEMENT, Port::MANAGEMENT),
        ];
        Self {
            settings: Some(settings),
            ports,
            bans: vec![],
            spilled: vec![],
            listed: vec![],
            crowded: false,
            buckets: [[0; 8]; LIMITS],
            budgets: [0; 8],
            spent: vec![],
            hellos: vec![],
        }
    }
}

impl State {
    /// With more known of a port.
    pub fn port(mut self, number: u16, port: Port) -> Self {
        let known = self.ports.iter_mut().find(|(known, _)| *known == number);
        match known {
            Some((_, known)) => *known = known.with(port),
            None => self.ports.push((number, port)),
        }
        self
    }

    /// With the settings changed.
    pub fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(self.settings.get_or_insert(Settings::PERMISSIVE));
        self
    }

    /// With one event per hour admitted at most: the length of a test plays no part.
    pub fn limited(self, limit: Limit) -> Self {
        self.set(|settings| settings.limits[0][limit as usize] = Self::HOURLY)
    }

    /// With a limit that the source has used up for good.
    pub fn exhausted(mut self, limit: Limit, source: SourceKey) -> Self {
        self.buckets[limit as usize][..2].copy_from_slice(&[source.get(), USED_UP]);
        self.limited(limit)
    }

    /// With a limit whose bucket is full of sources that owe.
    pub fn full(mut self, limit: Limit) -> Self {
        for (slot, pair) in self.buckets[limit as usize].chunks_exact_mut(2).enumerate() {
            pair.copy_from_slice(&[slot as u64 + 1, USED_UP]);
        }
        self.limited(limit)
    }

    /// With a source in the first slot that has used nothing of its limit.
    pub fn holding(mut self, limit: Limit, source: SourceKey) -> Self {
        self.buckets[limit as usize][..2].copy_from_slice(&[source.get(), 0]);
        self
    }

    /// With a budget besides that of a source, of which nothing is left.
    pub fn owing(mut self, scope: Scope, limit: Limit, group: u32, source: SourceKey) -> Self {
        self.budgets[..2].copy_from_slice(&[scope.key(limit, group, source, 0), USED_UP]);
        self.more(scope, limit, group)
    }

    /// With one event per hour in each budget of this scope.
    pub fn more(self, scope: Scope, limit: Limit, group: u32) -> Self {
        self.set(|settings| {
            settings.flags |= flag::MORE_BUDGETS;
            match scope {
                Scope::Site | Scope::Network => {
                    settings.networks[scope as usize][0][limit as usize] = Self::HOURLY;
                }
                Scope::Group => settings.groups[group as usize][limit as usize] = Self::HOURLY,
                Scope::Share => {
                    settings.everybody[limit as usize] = Self::HOURLY;
                    settings.shares[limit as usize] = Self::HOURLY;
                }
            }
        })
    }

    /// With every slot of the further budgets taken.
    pub fn full_budgets(mut self) -> Self {
        for (slot, pair) in self.budgets.chunks_exact_mut(2).enumerate() {
            pair.copy_from_slice(&[slot as u64 + 1, USED_UP]);
        }
        self
    }

    /// With a shared budget of which nothing is left.
    pub fn spent(mut self, place: u32) -> Self {
        self.spent.push(place);
        self
    }

    /// One of the shared budgets.
    pub fn shared(&self, place: u32) -> RawBucket {
        let mut bucket = [0; 8];
        if self.spent.contains(&place) {
            bucket[..2].copy_from_slice(&[limiter::SHARED, USED_UP]);
        }
        bucket
    }

    /// With lists of hellos.
    pub fn listing_hellos(mut self, hellos: &Hellos) -> Self {
        let key = self.settings.map_or(0, |settings| settings.seed);
        self.hellos = listed_hellos(hellos, key).into_iter().collect();
        let only = if hellos.only_names.is_empty() { 0 } else { flag::ONLY_NAMES };
        self.set(|settings| settings.flags |= flag::HELLO_LISTS | only)
    }

    /// With a flow table that has no room.
    pub fn crowded(mut self) -> Self {
        self.crowded = true;
        self
    }

    /// The words of the only bucket of the flow table at this time.
    pub fn flows(&self, now: u64) -> flow::RawBucket {
        if !self.crowded {
            return [0; flow::SLOTS];
        }
        std::array::from_fn(|slot| slot::word((slot as u64) << 32, Phase::Awaiting, now))
    }

    /// One event an hour: no test takes as long.
    pub const HOURLY: Rate = Rate::new(1, 3_600_000_000_000, 1);

    /// With a budget of SYNs of which nothing is left.
    pub fn syns_spent(self) -> Self {
        self.spent(shared::SYNS).set(|settings| settings.syn_budget = Self::HOURLY)
    }

    /// With a banned source.
    pub fn banned(mut self, source: SourceKey, until: u64) -> Self {
        self.bans.push((source, Ban { until }));
        self
    }

    /// With a banned source that found no slot.
    pub fn spilled(mut self, source: SourceKey, until: u64) -> Self {
        self.spilled.push((source, Ban { until }));
        self
    }

    /// The buckets, with the bans in that of the sources.
    pub fn filled(&self) -> [RawBucket; LIMITS] {
        let model = self.clone().tables(0);
        Limit::ALL.map(|limit| model.bucket(limit, 0))
    }

    /// With a listed prefix.
    pub fn listing(mut self, prefix: Prefix, listing: Listing) -> Self {
        self.listed.push((prefix, listing));
        self
    }

    /// The tables in plain memory, in this state at this time.
    pub fn tables(self, now: u64) -> Model {
        let flows = self.flows(now);
        let shared: Vec<_> = self.spent.iter().map(|place| (*place, self.shared(*place))).collect();
        let mut model = Model::new(self.settings);
        for (number, port) in self.ports {
            model.mark(number, port);
        }
        for (source, ban) in self.spilled {
            model.spill(source, ban);
        }
        for (prefix, listing) in self.listed {
            model.list(prefix, listing);
        }
        for (limit, bucket) in Limit::ALL.into_iter().zip(self.buckets) {
            model.fill(limit, 0, bucket);
        }
        for (source, ban) in self.bans {
            model.set_ban(source, ban);
        }
        for (place, bucket) in shared {
            model.fill_shared(place, bucket);
        }
        // Whichever a budget falls into.
        for index in 0..2 {
            model.fill_budgets(index, self.budgets);
        }
        for (hash, bits) in self.hellos {
            model.list_hello(hash, bits);
        }
        model.fill_flows(0, flows);
        model.listen(PROTECTED, COOKIE);
        model.set_now(now);
        model
    }
}
