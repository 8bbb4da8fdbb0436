//! Values and pure functions of Plimsoll: what was read, what it means, and what is said of it.
//!
//! Nothing here does I/O, spawns, logs or reads a clock; time comes in with a reading, and only
//! parsing settings can fail. The binary in `src/` reads servers, writes files and sends messages,
//! and calls this package; never the reverse.
//!
//! The order of the modules, each importing only those before it:
//! [`reading`] ← [`judge`] ← [`message`] ← [`status`]; [`settings`] imports the judge's rules.

pub mod judge;
pub mod message;
pub mod reading;
pub mod settings;
pub mod status;
