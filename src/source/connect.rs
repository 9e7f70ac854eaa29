//! stub
use crate::{conninfo::Conninfo, error::*};
/// x
pub async fn client(_c: &Conninfo, _a: &str) -> Result<tokio_postgres::Client> {
    Err(Error::transient("stub"))
}
