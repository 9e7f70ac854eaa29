//! The rules of a reader of the stream: what is taken in, what is handed to the target next, and
//! what is acknowledged.
//!
//! Nothing here waits or reads a clock: frames, results and the time come in, jobs and statuses go
//! out. So the loop ([`crate::run::stream`]), a copy that follows the stream
//! ([`crate::run::catch_up`]) and the model tests use the same code.
//!
//! ```text
//! frame -> Intake -> transaction -> Pending -> Job -> (applier) -> Done -> Acks -> Status
//! ```
//!
//! | module | rule |
//! |---|---|
//! | [`intake`] | frames become transactions, each judged once against what was applied before |
//! | [`pending`] | whole transactions gather in one batch |
//! | [`follower`] | a copy follows its own stream up to one position |
//! | [`consumer`] | which job is next, and when more may be read |
//! | [`acks`] | received >= applied >= durable >= acknowledged; when an idle position is stored |
//! | [`standby`] | the source's commits never wait for long |
//! | [`mode`] | streaming, pausing, paused |
//! | [`gather`] | when a small batch waits for more |
//! | [`patience`] | how long to wait for a slow target, a silent source and a shutdown |
//! | [`passed`] | what the stream and the watch know about each other |

use std::time::Duration;

pub mod acks;
pub mod consumer;
pub mod follower;
pub(crate) mod gather;
pub(crate) mod intake;
pub mod job;
pub(crate) mod mode;
pub mod passed;
pub(crate) mod patience;
pub(crate) mod pending;
pub(crate) mod standby;
pub mod start;

/// A time of a monotonic clock, counted from the beginning of the stream.
pub(crate) type Now = Duration;
