//! Looks at the tables that the stream has described, whenever it asks: before it hands their rows
//! on.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_postgres::Client;

use crate::error::Error;
use crate::run::messages::{Answer, Question};
use crate::source::shapes::Shapes;
use crate::sql::TableName;

/// How long such a look may take. Less than reading may stop, or a source that shuts down would
/// wait for it.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// Answers for as long as the session lasts.
pub(crate) async fn answer(
    client: &Client,
    publication: &str,
    mut questions: mpsc::Receiver<Question>,
) {
    let mut shapes = None;
    while let Some(Question { tables, reply }) = questions.recv().await {
        let looked = tokio::time::timeout(
            LOOK_PATIENCE,
            look(client, publication, &mut shapes, tables),
        );
        let answer = looked
            .await
            .unwrap_or_else(|_| Err(Error::transient("there was no answer in time")));
        let doing = "could not look at the tables that the stream describes";
        // A stream that has ended hears nothing.
        let _ = reply.send(answer.map_err(|error| error.context(doing)));
    }
}

async fn look(
    client: &Client,
    publication: &str,
    shapes: &mut Option<Shapes>,
    tables: Vec<TableName>,
) -> Answer {
    let shapes = match shapes {
        Some(shapes) => shapes,
        None => shapes.insert(Shapes::prepare(client).await?),
    };
    let now = shapes.read(client, publication, &tables).await?;
    Ok(tables.into_iter().zip(now).collect())
}
