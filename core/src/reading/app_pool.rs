//! What the instances of an application said of their connection pools.

pub mod presets;
pub mod scrape;

use serde::{Deserialize, Serialize};

use super::Failure;

/// What one round over the instances saw. An instance that is not listed any more is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// By address.
    pub instances: Vec<Instance>,
    /// Why the list of instances, or the addresses of a name, are earlier ones, if they could not
    /// be read anew.
    #[serde(default)]
    pub list: Option<Failure>,
}

/// One instance of the application.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Where it was scraped, without what is secret in it.
    pub address: String,
    /// Its pools, or why there are none to be had.
    pub pools: Result<Vec<Pool>, Failure>,
}

/// One pool of one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// As the application calls it; empty where it has no name.
    pub name: String,
    /// Whose names the numbers had: `hikaricp_micrometer`, `go_sql`…
    pub preset: String,
    /// Connections that are lent out.
    pub in_use: Option<u32>,
    /// Connections that are open and not lent out.
    pub idle: Option<u32>,
    /// The most that there can be.
    pub max: Max,
    /// Who waits for one now; `None` where the library has no gauge for it.
    pub waiting: Option<u32>,
    /// How often somebody gave up waiting, raw; it begins anew with the instance.
    pub timeouts_total: Option<u64>,
    /// How often somebody had to wait, raw.
    pub waits_total: Option<u64>,
    /// How long they waited in all, raw.
    pub wait_seconds_total: Option<f64>,
}

/// The most connections that a pool opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Max {
    /// It does not say.
    Unknown,
    /// As many as are asked for (0 or −1 in most libraries).
    Unlimited,
    /// So many.
    Of(u32),
}
