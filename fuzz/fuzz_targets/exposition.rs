//! Whatever an endpoint sends: no panic, bounded work, and the same pools however the network cuts
//! it into pieces. `make fuzz` runs it for as long as one likes, `make soak` for a minute.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_core::reading::app_pool::Pool;
use plimsoll_core::reading::app_pool::scrape::{MAX_POOLS, NoPools, Scrape, Wanted};

fn read(
    wanted: &Wanted,
    text: &[u8],
    piece: usize,
    is_openmetrics: bool,
) -> Result<Vec<Pool>, NoPools> {
    let mut scrape = Scrape::new(wanted);
    for piece in text.chunks(piece) {
        scrape.push(piece)?;
    }
    scrape.finish(is_openmetrics)
}

// The first byte says in what pieces it comes, and in what form.
fuzz_target!(|input: &[u8]| {
    let Some((first, text)) = input.split_first() else { return };
    let wanted = Wanted::of_all_presets();
    let is_openmetrics = first % 2 == 1;
    let whole = read(&wanted, text, usize::MAX, is_openmetrics);
    let cut = read(&wanted, text, usize::from(first / 2) + 1, is_openmetrics);
    assert_eq!(whole, cut);
    if let Ok(pools) = whole {
        assert!(pools.len() <= MAX_POOLS);
    }
});
