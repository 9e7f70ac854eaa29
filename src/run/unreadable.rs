//! A read model with a value that the source cannot read: it is suspended, and its table leaves our
//! publication.
//!
//! A copy bypasses a value that the stream cannot carry (`crate::stuck`), as long as the value is
//! in a column that no read model projects. If the copy fails on it too, the table's next update
//! could end the stream again, for all read models. So the table is published again only once a
//! plain read of it succeeds.

use futures_util::TryStreamExt;
use tokio_postgres::Client;

use crate::error::{Class, Error, Result};
use crate::facts::Publication;
use crate::ownership::{Maker, Ownership};
use crate::publication::drop_table_sql;
use crate::run::bind::Bound;
use crate::run::owner::Owner;
use crate::run::shared::Shared;
use crate::source;
use crate::source::copy_query::copy_query;
use crate::source::error::from_driver;
use crate::target::model::TargetModel;

/// Classes of SQLSTATE that the source reports for a value that it cannot send as text: it has no
/// text in UTF-8 (22), it is too large (54), its storage is damaged or more than can be allocated
/// (XX). The target's errors of these classes do not break a read model.
const OF_A_VALUE: [&str; 3] = ["22", "54", "XX"];

/// Whether a copy failed because of a value of the source.
pub(crate) fn is_of_a_value(error: &Error) -> bool {
    let of_a_value = |sqlstate: &str| OF_A_VALUE.iter().any(|class| sqlstate.starts_with(class));
    error.class() == Class::Broken && error.sqlstate().is_some_and(of_a_value)
}

/// Why a session ends once such a value is found: the next one begins with another publication.
pub(crate) fn withdrawn() -> Error {
    Error::transient(
        "a table leaves the publication, since the source cannot read out a value of it",
    )
}

/// Takes the read models with such a value out of the stream, and their tables out of our
/// publication.
///
/// # Errors
/// As any query; a table that is not free stays in the publication until the next session.
pub(crate) async fn withdraw(
    shared: &Shared,
    client: &Client,
    owner: &mut Owner<'_>,
    ownership: &Ownership,
    bound: &mut [Bound],
) -> Result<()> {
    let unreadable = owner.bookkeeping.unreadable(owner.conn).await?;
    if unreadable.is_empty() {
        return Ok(());
    }
    let name = &shared.settings.source.publication;
    let existing = source::facts::publication(client, name).await?;
    let readable: Vec<_> = bound
        .iter()
        .filter(|bound| bound.model.is_ok() && !unreadable.contains(&bound.id))
        .map(|bound| bound.settings.source.clone())
        .collect();
    for bound in bound
        .iter_mut()
        .filter(|bound| unreadable.contains(&bound.id))
    {
        let table = &bound.settings.source;
        let mut error = Error::broken(format!(
            "table \"{table}\" has a value that the source cannot read out"
        ))
        .with_hint("Correct or delete the value at the source; the read model is copied again within an hour, or by `cdc resync`.");
        let holds = |existing: &&Publication| {
            let mut tables = existing.tables.iter();
            tables.any(|published| &published.table == table)
        };
        let published = existing.as_ref().filter(holds);
        if let Some(existing) = published.filter(|_| !readable.contains(table)) {
            let sql = drop_table_sql(name, table);
            let maker = ownership.maker(existing.comment.as_deref());
            if maker == Maker::ThisPipeline && existing.owned {
                take_out(client, &sql).await;
            } else {
                error = error.with_hint(format!(
                    "The value would end the stream at the row's next update. Correct it, or let the publication's owner run: {sql};"
                ));
            }
        }
        tracing::warn!(read_model = bound.settings.name(), %error, hint = error.hint(), "read model takes no part");
        bound.unbind(owner, error).await?;
    }
    Ok(())
}

/// Takes a table out of our publication by this statement. One that is not free stays in it.
async fn take_out(client: &Client, sql: &String) {
    match source::publication::execute(client, std::slice::from_ref(sql)).await {
        Ok(()) => tracing::info!(sql, "set up the publication"),
        Err(error) => {
            tracing::warn!(%error, sql, "could not take a table out of the publication")
        }
    }
}

/// Reads what a copy would read, and discards it.
///
/// # Errors
/// Broken, if there still is a value that cannot be read.
pub(crate) async fn read_through(client: &Client, model: &TargetModel) -> Result<()> {
    let read = async {
        let rows = client.copy_out(&copy_query(&model.model)).await?;
        let mut rows = std::pin::pin!(rows);
        while rows.try_next().await?.is_some() {}
        Ok::<_, tokio_postgres::Error>(())
    };
    read.await.map_err(|error| {
        let error = from_driver(error).with_class(Class::Broken);
        error.context(format_args!(
            "could not read table \"{}\"",
            model.model.settings.source
        ))
    })
}
