//! Readings in, transitions and notifications out: the judge from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod beside;
mod joined;
mod logins;
mod places;
mod properties;
mod switches;
mod tellings;
mod timeline;
mod timelines;
mod words;
