//! The wire: from received bytes to pgoutput messages, and the few messages that go back.
//!
//! What comes in is a receive buffer; what goes out are messages that borrow from it:
//!
//! ```text
//! buffer --frame::split--> Frame --Backend::decode--> CopyData --StreamFrame::decode--> WalData
//!        --pgoutput::decode--> Message --Tuple::cells--> row::Cell
//! ```
//!
//! Reference: PostgreSQL manual, "Frontend/Backend Protocol", "Streaming Replication Protocol" and
//! "Logical Replication Message Formats". Integers are big-endian, times are microseconds since
//! 2000-01-01 UTC.
//!
//! Invariants: every count and length is checked before it is used, and a count that the message is
//! too short for allocates nothing; bytes left over are an error; an error names the message, the
//! offset in it, what was expected and what was found, and never a value of a row.

mod reader;

pub mod frame;
pub mod pgoutput;
pub mod tuple;
