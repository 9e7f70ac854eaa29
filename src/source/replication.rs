//! stub
use crate::{conninfo::Conninfo, error::*, lsn::Lsn, protocol::frame::StreamFrame};
/// x
#[derive(Debug)]
pub struct Replication;
/// x
pub struct SystemIdentity {
    pub system_identifier: String,
    pub timeline: i32,
    pub wal_flush: Lsn,
    pub database: String,
}
impl Replication {
    pub async fn connect(_c: &Conninfo, _a: &str) -> Result<Self> {
        Err(Error::transient("stub"))
    }
    pub async fn simple_query(&mut self, _s: &str) -> Result<Vec<Vec<Option<String>>>> {
        Err(Error::transient("stub"))
    }
    pub async fn identify_system(&mut self) -> Result<SystemIdentity> {
        Err(Error::transient("stub"))
    }
    pub async fn start(&mut self, _s: &str, _l: Lsn, _p: &str) -> Result<()> {
        Err(Error::transient("stub"))
    }
    pub async fn fill(&mut self) -> Result<()> {
        Err(Error::transient("stub"))
    }
    pub fn next_frame(&mut self) -> Result<Option<StreamFrame<'_>>> {
        Err(Error::transient("stub"))
    }
    pub async fn send_status(&mut self, _w: Lsn, _f: Lsn, _a: Lsn, _r: bool) -> Result<()> {
        Err(Error::transient("stub"))
    }
    pub async fn finish(self) {}
}
