//! `overcommit`: applications and poolers may open more connections than the server has slots.
//!
//! From the post-mortem of 2024-03-15, attempt 3: scaling from 3 to 8 replicas made it worse. It is
//! said before it happens, from what is configured, and is advice: many fleets live like that for
//! years, since not all pools are full at once. In an incident it stands beside the cause, so that
//! nobody adds instances.

use std::collections::BTreeMap;

use super::{Condition, Finding, Findings, LevelFinding, Patience, RuleSet, Subject, words};
use crate::judge::look::Look;
use crate::judge::source::{of_app_pool, of_pooler};
use crate::reading::app_pool::{self, Max};
use crate::reading::pooler::Reach;

/// Instances of an application are of one or two sizes, while it is rolled out; of more than so
/// many only the sum is said.
const MAX_SIZES: usize = 3;

/// What those who connect may open together.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// The sum, as far as it is known.
    pub connections: u64,
    /// Whether nothing is missing in the sum.
    pub is_complete: bool,
    /// One for each who connects, e.g. `payment-api 3 × 50` or `pgbouncer 60`.
    pub parts: Vec<String>,
    /// Those without a bound.
    pub unbounded: Vec<String>,
    /// Whether instances of applications are a part of it: then adding more makes it worse.
    pub has_instances: bool,
}

/// What poolers, and the applications that go through none of them, may open together.
pub fn demand(look: &Look<'_>) -> Demand {
    let mut demand = Demand {
        connections: 0,
        is_complete: true,
        parts: Vec::new(),
        unbounded: Vec::new(),
        has_instances: false,
    };
    let through = &look.sources.through;
    let is_read = |name: &String| look.standing(name).is_some_and(|it| it.trouble.is_none());
    let counts = |name: &&String| {
        let application = name.strip_prefix("app_pool/");
        let is_direct = application.is_some_and(|name| !through.contains_key(name));
        name.starts_with("pooler/") || is_direct
    };
    demand.is_complete = look.sources.names.iter().filter(counts).all(is_read);
    for application in &look.reading.app_pools {
        if !through.contains_key(&application.name)
            && is_read(&of_app_pool(&application.name))
            && let Some(seen) = application.part.known()
        {
            demand.add_application(&application.name, seen);
        }
    }
    for pooler in &look.reading.poolers {
        if !is_read(&of_pooler(&pooler.name)) {
            continue;
        }
        let name = words::clean(&pooler.name);
        let reachable = pooler.part.known().map(|seen| seen.lookup().reachable_by_server());
        let reachable = reachable.unwrap_or_default();
        // Which of several addresses is this server's nobody tells: at least the smallest counts.
        demand.is_complete &= reachable.len() <= 1;
        match reachable.iter().map(|server| server.servers).min_by_key(|reach| least(*reach)) {
            None | Some(Reach::AtMost(0)) => {}
            Some(Reach::AtMost(servers)) => {
                demand.connections = demand.connections.saturating_add(servers.into());
                demand.parts.push(format!("{name} {servers}"));
            }
            Some(Reach::Unlimited) => demand.unbounded.push(name),
            Some(Reach::Unknown) => demand.is_complete = false,
        }
    }
    demand
}

/// Orders by what is certain to be reached.
fn least(reach: Reach) -> u32 {
    match reach {
        Reach::Unknown => 0,
        Reach::AtMost(servers) => servers,
        Reach::Unlimited => u32::MAX,
    }
}

impl Demand {
    fn add_application(&mut self, application: &str, seen: &app_pool::Observation) {
        let name = words::clean(application);
        // How many pools have each size; an instance may have several pools.
        let mut sizes: BTreeMap<u32, u64> = BTreeMap::new();
        let mut is_unbounded = false;
        for instance in &seen.instances {
            let Ok(pools) = &instance.pools else {
                self.is_complete = false;
                continue;
            };
            for pool in pools {
                match pool.max {
                    Max::Of(max) => *sizes.entry(max).or_default() += 1,
                    Max::Unlimited => is_unbounded = true,
                    Max::Unknown => self.is_complete = false,
                }
            }
        }
        sizes.remove(&0);
        let sum = sizes.iter().map(|(size, pools)| u64::from(*size).saturating_mul(*pools));
        let sum = sum.fold(0, u64::saturating_add);
        if is_unbounded {
            self.unbounded.push(name);
        } else if sum > 0 {
            self.has_instances = true;
            let sized = sizes.iter().map(|(size, pools)| format!("{pools} × {size}"));
            let sized: Vec<String> = sized.take(MAX_SIZES + 1).collect();
            let sized = if sized.len() <= MAX_SIZES { sized.join(" + ") } else { sum.to_string() };
            self.parts.push(format!("{name} {sized}"));
        }
        self.connections = self.connections.saturating_add(sum);
    }

    /// The arithmetic against the usable slots, e.g. `payment-api 3 × 50 = 150 > 97 usable slots:
    /// adding instances will make it worse`.
    pub fn words(&self, usable: u32) -> String {
        let Self { connections, parts, unbounded, .. } = self;
        if !unbounded.is_empty() {
            let who = unbounded.join(", ");
            return format!("{who} may open any number of connections, {usable} slots are usable");
        }
        let sum = match &parts[..] {
            [] => "nobody who connects is known".to_owned(),
            [one] if !one.contains(" × ") => one.clone(),
            all => format!("{} = {connections}", all.join(" + ")),
        };
        if *connections <= u64::from(usable) {
            return format!("{sum} ≤ {usable} usable slots");
        }
        let advice = if self.has_instances { ": adding instances will make it worse" } else { "" };
        format!("{sum} > {usable} usable slots{advice}")
    }

    /// Whether it is more than there is, if that is known.
    pub fn exceeds(&self, usable: u32) -> Option<bool> {
        let exceeds = !self.unbounded.is_empty() || u64::from(usable) < self.connections;
        // What is missing can only add to it.
        (exceeds || self.is_complete).then_some(exceeds)
    }
}

pub(super) fn find(set: &RuleSet, look: &Look<'_>) -> Findings {
    let Some(rule) = set.overcommit else { return Findings::Off };
    let Some(seen) = look.reading.postgres.known() else { return Findings::Unknown };
    let usable = seen.slots().usable;
    let demand = demand(look);
    let condition = match demand.exceeds(usable) {
        Some(true) => Condition::Met,
        Some(false) => Condition::Clear,
        None => Condition::Unknown,
    };
    let patience = Patience { hold: rule.hold, readings: 1, keep_firing_for: rule.keep_firing_for };
    Findings::Known(vec![Finding {
        subject: Subject::Target,
        // Advice: its alert is `info`, see `RuleName::is_advice`.
        warning: Some(LevelFinding { condition, patience }),
        critical: None,
        observed: demand.words(usable),
        weight: 1.0,
        served: None,
    }])
}
