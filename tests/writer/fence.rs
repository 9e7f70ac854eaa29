//! A process that was overtaken writes nothing: neither rows nor a line of the bookkeeping.

use cdc::error::Class;
use cdc::lsn::Lsn;
use cdc::target::bookkeeping::{CopyProgress, Stored};

use crate::cases::TABLES;
use crate::rig::Rig;
use crate::support::rows;

/// Everything that the bookkeeping holds.
const ALL: &str = "SELECT (SELECT string_agg(p::text, ';') FROM cdc.pipeline p), (SELECT string_agg(c::text, ';') FROM cdc.checkpoint c), (SELECT string_agg(m::text, ';' ORDER BY id) FROM cdc.read_model m),
    (SELECT string_agg(r::text, ';' ORDER BY id) FROM cdc.resync r),
    (SELECT string_agg(s::text, ' ' ORDER BY 1) FROM cdc.shadow s)";

#[tokio::test]
async fn every_write_of_the_bookkeeping_names_the_epoch() {
    let mut rig = Rig::new(TABLES).await;
    let bookkeeping = rig.bookkeeping.clone();
    let epoch = rig.writer.epoch();
    let conn = rig.writer.connection();
    let model = bookkeeping
        .add_model(conn, epoch, "public.lookup", "public.master")
        .await
        .unwrap();
    let mine = bookkeeping
        .start_resync(conn, epoch, "schedule")
        .await
        .unwrap();
    bookkeeping
        .request_resync(conn, None, None, "request")
        .await
        .unwrap();
    rig.another_writer().await;
    rig.db
        .batch_execute(
            "UPDATE cdc.read_model SET copy_rows = 7; UPDATE cdc.pipeline SET waiting_for = 'somebody'",
        )
        .await
        .unwrap();
    let before = rows(&rig.db, ALL).await;
    let conn = rig.writer.connection();
    let progress = Some(CopyProgress {
        rows: 1,
        bytes: 2,
        estimate: None,
        seconds: 1.0,
    });
    let result = serde_json::json!({});
    let seen = Stored {
        published: Some("p".to_owned()),
        ..Stored::default()
    };
    let error = cdc::error::Error::broken("it fails");
    let done = [
        (
            "add_model",
            bookkeeping
                .add_model(conn, epoch, "public.other", "public.master")
                .await
                .map(drop),
        ),
        ("suspend", bookkeeping.suspend(conn, epoch, model, &error).await),
        (
            "set_watched",
            bookkeeping.set_watched(conn, (epoch, model), &seen).await,
        ),
        (
            "set_copy_progress",
            bookkeeping.set_copy_progress(conn, epoch, model, progress).await,
        ),
        (
            "set_copy_waiting",
            bookkeeping
                .set_copy_waiting(conn, epoch, Some(mine), Some("me"))
                .await,
        ),
        (
            "request_by_watch",
            bookkeeping.request_by_watch(conn, epoch, "public.lookup").await,
        ),
        (
            "start_resync",
            bookkeeping.start_resync(conn, epoch, "schedule").await.map(drop),
        ),
        (
            "note_copy",
            bookkeeping.note_copy(conn, epoch, "heal", Lsn(16), &result).await,
        ),
        (
            "requeue_requests",
            bookkeeping.requeue_requests(conn, epoch).await,
        ),
        (
            "postpone_resync",
            bookkeeping
                .postpone_resync(conn, epoch, mine, "later")
                .await
                .map(drop),
        ),
        (
            "mark_merged",
            bookkeeping.mark_merged(conn, epoch, mine, Lsn(16)).await,
        ),
        (
            "finish_resync",
            bookkeeping
                .finish_resync(conn, epoch, mine, Some((Lsn(16), &result)), None)
                .await,
        ),
        (
            "note_compared",
            bookkeeping
                .note_compared(
                    conn,
                    epoch,
                    &serde_json::json!({"public.lookup": {"missing": 1, "extra": 0, "different": 0}}),
                )
                .await,
        ),
        ("forget_progress", bookkeeping.forget_progress(conn, epoch).await),
    ];
    for (what, done) in done {
        assert_eq!(done.unwrap_err().class(), Class::Fenced, "{what}");
    }
    // A sign of life of one that was overtaken is none.
    bookkeeping.beat(conn, epoch).await.unwrap();
    assert!(!bookkeeping.is_wanted(conn, epoch, mine).await.unwrap());
    assert!(
        bookkeeping
            .next_request(conn, epoch, &[])
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(rows(&rig.db, ALL).await, before);
}

/// A request that the last owner took in the moment of the claim is seen by the new one whenever it
/// looks.
#[tokio::test]
async fn a_request_that_an_overtaken_process_has_taken_along_is_carried_out_all_the_same() {
    let mut rig = Rig::new(TABLES).await;
    let bookkeeping = rig.bookkeeping.clone();
    let epoch = rig.writer.epoch();
    let conn = rig.writer.connection();
    let id = bookkeeping
        .request_resync(conn, None, None, "request")
        .await
        .unwrap();
    let mut other = rig.another_writer().await;
    let owner = other.epoch();
    bookkeeping
        .requeue_requests(other.connection(), owner)
        .await
        .unwrap();
    rig.db
        .batch_execute(&format!(
            "UPDATE cdc.resync SET state = 'running', epoch = {epoch}"
        ))
        .await
        .unwrap();
    let taken = bookkeeping
        .next_request(other.connection(), owner, &[])
        .await
        .unwrap();
    assert_eq!(taken.map(|request| request.id), Some(id));
    assert!(
        bookkeeping
            .is_wanted(other.connection(), owner, id)
            .await
            .unwrap()
    );
    // Its own is not queued again while it carries it out, and one that waits for its next try is
    // left.
    assert!(
        bookkeeping
            .next_request(other.connection(), owner, &[])
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        bookkeeping
            .postpone_resync(other.connection(), owner, id, "later")
            .await
            .unwrap()
    );
    assert!(
        bookkeeping
            .next_request(other.connection(), owner, &[id])
            .await
            .unwrap()
            .is_none()
    );
    bookkeeping
        .cancel_resync(other.connection(), id)
        .await
        .unwrap();
    assert!(
        bookkeeping
            .next_request(other.connection(), owner, &[])
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        !bookkeeping
            .postpone_resync(other.connection(), owner, id, "later")
            .await
            .unwrap()
    );
    let result = serde_json::json!({});
    bookkeeping
        .finish_resync(
            other.connection(),
            owner,
            id,
            Some((Lsn(16), &result)),
            None,
        )
        .await
        .unwrap();
    let left = "SELECT state, error, lsn FROM cdc.resync";
    assert_eq!(rows(&rig.db, left).await, ["failed|cancelled|-"]);
}
