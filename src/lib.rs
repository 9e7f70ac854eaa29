//! `cdc` keeps read-only lookup tables in one PostgreSQL database in step with master tables in
//! another.
//!
//! It is a consumer of logical replication (pgoutput). The promise, which every test checks: at any
//! moment each lookup equals `SELECT <columns> FROM <source> WHERE <live>` as of one commit of the
//! source; never half a transaction, never an older commit after a newer one, never an empty or
//! mixed table during a copy.
//!
//! # The path of the data
//!
//! ```text
//! bytes -> frame -> message -> change -> transaction -> fold
//!       -> applied with its checkpoint -> acknowledged LSN
//! ```
//!
//! A message becomes a read model's change at once, before its transaction is whole: so an open
//! transaction holds projected rows only. One UPDATE of a label, from the socket to the
//! acknowledgement:
//!
//! ```text
//! run::stream::Stream::turn_until_stopped         the loop: it waits for whatever comes first
//!   source::replication::Replication::fill        bytes into the one receive buffer
//!   run::stream::Stream::drain
//!     Replication::next_frame                     -> StreamFrame::WalData, borrowed
//!     consume::consumer::Consumer::take
//!       consume::intake::Intake::take
//!         protocol::pgoutput::decode              -> Message::Update, borrowed
//!         transaction::Assembler::take            finds the table's read models
//!           read_model::ReadModel::update         -> Change: the row as it is shown, owned
//!       at the Commit: Assembler::take            -> Transaction
//!         progress::Replay::judge                 was it applied before? is it of that history?
//!       consume::pending::Pending::add
//!         fold::Fold::add                         -> one final state for each row
//!   Consumer::next                                -> Job::Apply(Batch), once the applier is free
//!   run::applier::Applier::submit                 a task of its own, which nothing cancels
//!     target::write::Writer::apply                rows, map and checkpoint, one transaction
//!   Consumer::done                                -> what is applied and durable moves on
//!   Consumer::next                                -> Status: what the source may forget
//!   Replication::send_status
//! ```
//!
//! All decisions are made in [`consume`], without a clock or a socket; the loop ([`run::stream`])
//! only carries them out.
//!
//! Beside it, exact copies (first copy, healing, resync): [`run::copy`] reads the source under a
//! slot's exported snapshot into a shadow, [`run::catch_up`] brings the shadow to the stream's
//! position, and the same writer merges it. Where no `cdc` runs, [`run::plain`] only compares, and
//! leaves nothing behind.
//!
//! # Modules in reading order
//!
//! A pure core, without async, I/O, clock, randomness or logging, each importing only earlier ones:
//! [`error`], [`lsn`], [`sql`], [`row`], [`conninfo`], [`settings`], [`facts`], [`identity`],
//! [`ownership`], [`publication`], [`protocol`], [`progress`], [`as_of`], [`standbys`],
//! [`relation`], [`read_model`], [`shape`], [`transaction`], [`fold`], [`batch`], [`consume`],
//! [`retry`], [`stuck`], [`schedule`], [`check`], [`status`].
//!
//! The edges: [`connect`], one way to a server for both sides; [`source`] and [`target`], which
//! never see each other.
//!
//! The wiring, which alone sees both: [`run`] (life of the process, the one loop, copies), [`cli`],
//! [`config`], [`telemetry`], [`demo`] and [`cluster`] (throw-away servers for demo and tests).
//! `tests/pure/layers.rs` checks all this.
//!
//! # Invariants
//!
//! * No core module awaits.
//! * Only [`consume::acks`] decides what is acknowledged, and never more than a durable checkpoint
//!   covers.
//! * Only [`target::write`] writes lookup rows, and only together with the checkpoint that covers
//!   them.
//! * Nothing is read under an exported snapshot before it has settled ([`source::settled`]).
//! * The source's tables are never altered, and nothing is published that breaks the application's
//!   writes.
//! * No row value reaches a log line or an error; keys only at debug.
//! * No identifier reaches SQL unquoted.

#![warn(unreachable_pub)]

pub mod as_of;
pub mod batch;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod connect;
pub mod conninfo;
pub mod consume;
pub(crate) mod demo;
pub mod error;
pub mod facts;
pub mod fold;
pub mod identity;
pub mod lsn;
pub mod ownership;
pub mod progress;
pub mod protocol;
pub(crate) mod publication;
pub mod read_model;
pub mod relation;
pub(crate) mod retry;
pub mod row;
pub(crate) mod run;
pub(crate) mod schedule;
pub mod settings;
pub mod shape;
pub mod source;
pub mod sql;
pub(crate) mod standbys;
pub mod status;
pub(crate) mod stuck;
pub mod target;
pub(crate) mod telemetry;
pub mod transaction;
