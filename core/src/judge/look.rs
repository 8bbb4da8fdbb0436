//! What the rules look at: one reading, with what is remembered and what settings say of it.
//!
//! Made once a step; a rule looks and does not change anything.

use super::memory::Memory;
use super::pool::{self, PoolState};
use super::rule::words;
use super::source::{Sources, Standing, Trouble, standings};
use crate::reading::Reading;

/// A reading and all that is needed to understand it.
pub struct Look<'a> {
    /// The reading.
    pub reading: &'a Reading,
    /// What is remembered, this reading included.
    pub memory: &'a Memory,
    /// What settings say of the target's sources.
    pub sources: &'a Sources,
    /// How each source stands that has left something.
    pub standings: Vec<Standing>,
    /// The pools that are known.
    pub pools: Vec<PoolState>,
}

impl<'a> Look<'a> {
    /// At this reading.
    pub fn new(reading: &'a Reading, memory: &'a Memory, sources: &'a Sources) -> Self {
        let (standings, pools) = (standings(reading), pool::pools(reading, memory));
        Self { reading, memory, sources, standings, pools }
    }

    /// How a source stands; `None` if it has left nothing yet, or there is none of this name.
    pub fn standing(&self, source: &str) -> Option<&Standing> {
        self.standings.iter().find(|standing| standing.name == source)
    }

    /// Sources that say nothing of now.
    pub fn troubles(&self) -> impl Iterator<Item = &Standing> {
        self.standings.iter().filter(|standing| standing.trouble.is_some())
    }

    /// What is not known, a sentence for each source: those that say nothing of now, those that
    /// settings name and that have left nothing yet, and applications of which an instance cannot
    /// be read in which somebody waited.
    pub fn unknown(&self) -> Vec<String> {
        let troubles = self.standings.iter().filter_map(|standing| {
            Some(match standing.trouble.as_ref()? {
                Trouble::Stale => words::stale(&standing.name, standing.age),
                Trouble::Failed(failure) => words::unreadable(&standing.name, failure),
            })
        });
        let silent = self.sources.names.iter().filter(|name| self.standing(name).is_none());
        let silent = silent.map(|name| format!("{name} was not read yet"));
        let hidden =
            self.pools.iter().filter(|pool| pool.may_hide_waits).map(|pool| {
                format!("{} is not known in every instance", words::pool_name(&pool.name))
            });
        troubles.chain(silent).chain(hidden).collect()
    }

    /// Whether settings name a source, or it left something: else it is watched no more.
    pub fn is_watched(&self, source: &str) -> bool {
        self.sources.names.contains(source) || self.standing(source).is_some()
    }
}
