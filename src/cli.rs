//! The commands, one thin file each.

pub mod demo;
