//! The target's writer alone on a real server: what a batch of changes makes of lookup, map and
//! checkpoint.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod again;
mod cases;
mod domains;
mod fence;
mod first_copy;
mod first_error;
mod given_up;
mod held_snapshot;
mod history;
mod isolate;
mod key_index;
mod limits;
#[path = "../support/line.rs"]
mod line;
mod locks;
mod new_chunks;
mod new_rows;
mod plans;
mod random;
mod rejected_chunks;
#[path = "../support/rig.rs"]
mod rig;
mod round_trips;
mod sweep;
mod tables;
