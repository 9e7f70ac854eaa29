//! stub
use crate::{error::*, lsn::Lsn, source::replication::Replication};
/// x
pub struct CreatedSlot {
    pub name: String,
    pub consistent_point: Lsn,
    pub snapshot_name: String,
}
pub async fn create_within(
    _r: &mut Replication,
    _c: &tokio_postgres::Client,
    _n: &str,
    _t: bool,
    _d: std::time::Duration,
) -> Result<CreatedSlot> {
    Err(Error::transient("stub"))
}
pub async fn drop(_r: &mut Replication, _n: &str) -> Result<()> {
    Err(Error::transient("stub"))
}
