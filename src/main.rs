//! The command `plimsoll`: to be built on what the library has.

fn main() {}
