//! stub
use crate::{error::*, source::error::from_driver, sql::TableName};
use futures_util::TryStreamExt;
use tokio_postgres::Client;
/// x
pub struct Snapshot(Client);
impl Snapshot {
    pub async fn open(c: Client, _o: &Client, n: &str, _d: std::time::Duration) -> Result<Self> {
        c.batch_execute(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{n}'"
        ))
        .await
        .map_err(from_driver)?;
        Ok(Self(c))
    }
    pub fn client(&self) -> &Client {
        &self.0
    }
    pub async fn lock_table(&self, _t: &TableName) -> Result<()> {
        Ok(())
    }
    pub async fn copy_out(
        &self,
        s: &str,
    ) -> Result<impl futures_util::Stream<Item = Result<bytes::Bytes>> + use<>> {
        Ok(self
            .0
            .copy_out(s)
            .await
            .map_err(from_driver)?
            .map_err(from_driver))
    }
    pub async fn anybody_waits_for_us(&self, _o: &Client) -> Result<bool> {
        Ok(false)
    }
    pub async fn close(self) {}
}
