//! Plimsoll watches PostgreSQL connection slots run full, says who holds them and why, pages once
//! and keeps the record.

pub mod chain;
pub mod cli;
pub mod clock;
pub mod collect;
pub mod drill;
pub mod health;
pub mod load;
pub mod notify;
pub mod run;
pub mod serve;
pub mod store;
