//! Which server of several took the last connection of this process.
//!
//! It is asked first the next time: a first host that hangs would cost each reconnect its timeout.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::side::Side;
use super::wire::Address;
use crate::conninfo::Host;

/// The place of a host in the connection string, and its address.
type Good = (usize, Address);

/// By the servers that could be asked.
static LAST_GOOD: Mutex<BTreeMap<String, Good>> = Mutex::new(BTreeMap::new());

fn key(side: Side, hosts: &[Host]) -> String {
    format!("{side} {hosts:?}")
}

/// The server that took the last connection; `None` if none has, or if there is only one.
pub(super) fn of(side: Side, hosts: &[Host]) -> Option<Good> {
    if hosts.len() < 2 {
        return None;
    }
    let known = LAST_GOOD.lock().unwrap_or_else(PoisonError::into_inner);
    known.get(&key(side, hosts)).cloned()
}

/// Notes that this server took a connection.
pub(super) fn note(side: Side, hosts: &[Host], good: Good) {
    if hosts.len() < 2 {
        return;
    }
    let mut known = LAST_GOOD.lock().unwrap_or_else(PoisonError::into_inner);
    known.insert(key(side, hosts), good);
}
