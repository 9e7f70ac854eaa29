//! The commands, one thin file each.

pub mod check;
mod common;
pub mod setup;
pub mod status;
pub mod teardown;
