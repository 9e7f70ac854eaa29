//! stub
use crate::{error::*, lsn::Lsn, source::replication::Replication};
/// x
pub struct CreatedSlot {
    pub name: String,
    pub consistent_point: Lsn,
    pub snapshot_name: String,
}
pub async fn create_within(
    r: &mut Replication,
    _c: &tokio_postgres::Client,
    n: &str,
    t: bool,
    _d: std::time::Duration,
) -> Result<CreatedSlot> {
    let rows = r
        .simple_query(&format!(
            "CREATE_REPLICATION_SLOT {n} {} LOGICAL pgoutput EXPORT_SNAPSHOT",
            if t { "TEMPORARY" } else { "" }
        ))
        .await?;
    let g = |i: usize| {
        rows.first()
            .and_then(|r| r.get(i))
            .cloned()
            .flatten()
            .unwrap_or_default()
    };
    Ok(CreatedSlot {
        name: n.into(),
        consistent_point: g(1).parse()?,
        snapshot_name: g(2),
    })
}
pub async fn drop(r: &mut Replication, n: &str) -> Result<()> {
    r.simple_query(&format!("DROP_REPLICATION_SLOT {n}"))
        .await
        .map(|_| ())
}
