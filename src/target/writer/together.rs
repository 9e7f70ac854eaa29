//! Preparing many read models in few transactions.
//!
//! Each read model takes a dozen statements, and a commit for each would wait for the disk.

use super::{Writer, execute};
use crate::error::Result;

/// Read models that are prepared in one transaction; each takes a dozen locks that are held to its end.
const TOGETHER: usize = 50;

impl Writer {
    /// Makes the session's staging tables and functions for these read models, and with `merging` those for the merge of exact copies too.
    pub(super) async fn prepare_all(&mut self, indexes: &[usize], merging: bool) -> Result<()> {
        for some in indexes.chunks(TOGETHER) {
            execute(&mut self.conn, "BEGIN".to_owned()).await?;
            let prepared = self.prepare_some(some, merging).await;
            let end = if prepared.is_ok() { "COMMIT" } else { "ROLLBACK" };
            let ended = execute(&mut self.conn, end.to_owned()).await;
            if let Err(error) = prepared.and(ended) {
                // What was made before it is gone.
                for index in some {
                    self.forget_prepared(*index)?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The same for those of a batch that are not prepared yet.
    pub(super) async fn prepare_missing(&mut self, mut indexes: Vec<usize>) -> Result<()> {
        let mut unknown = Ok(());
        indexes.retain(|index| match self.model(*index) {
            Ok(model) => !self.prepared.contains(&model.id),
            Err(error) => {
                unknown = Err(error);
                false
            }
        });
        unknown?;
        self.prepare_all(&indexes, false).await
    }

    async fn prepare_some(&mut self, indexes: &[usize], merging: bool) -> Result<()> {
        for index in indexes {
            self.prepare(*index).await?;
            if merging {
                let model = self.model(*index)?;
                execute(&mut self.conn, model.merge_shadow_function()).await?;
                self.prepare_isolation(*index).await?;
                execute(&mut self.conn, model.isolate_shadow_function()).await?;
            }
        }
        Ok(())
    }

    fn forget_prepared(&mut self, index: usize) -> Result<()> {
        let id = self.model(index)?.id;
        self.prepared.remove(&id);
        self.isolation_prepared.remove(&id);
        self.chunks_prepared.remove(&id);
        Ok(())
    }

    /// [`Writer::warm`] for several read models.
    ///
    /// # Errors
    /// As it.
    pub async fn warm_all(&mut self, indexes: &[usize]) -> Result<()> {
        self.prepare_missing(indexes.to_vec()).await?;
        for index in indexes {
            self.warm(*index).await?;
        }
        Ok(())
    }
}
