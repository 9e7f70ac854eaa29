//! A copy whose shadow was given to another one, or emptied, is not merged: an empty shadow is no
//! table without rows.

use cdc::batch::MergePosition;
use cdc::lsn::Lsn;
use cdc::target::bookkeeping::Readers;
use cdc::target::shadow::ShadowWriter;

use crate::cases::{TABLES, labels};
use crate::isolate::fill;
use crate::rig::{FIRST, Rig};
use crate::support::{rows, value};

const LOOKUP: &str = "SELECT code, label FROM lookup ORDER BY code";

async fn rig_with_a_copy() -> (Rig, ShadowWriter) {
    let mut rig = Rig::new(TABLES).await;
    rig.add(&labels(false)).await;
    rig.write(FIRST, &["+1|A|one|-"]).await.unwrap();
    let shadow = fill(&rig, FIRST, &["1|l|A|one"]).await;
    let model = rig.models[0].target.clone();
    let copy = value(
        &rig.db,
        "SELECT copy FROM cdc.shadow WHERE name = 'shadow_1_1'",
    )
    .await;
    rig.writer.set_model(FIRST, model.with_shadow(1, &copy));
    (rig, shadow)
}

#[tokio::test]
async fn copy_is_merged_only_while_its_shadow_is_its_own() {
    let (mut rig, mut shadow) = rig_with_a_copy().await;
    let position = MergePosition::Running(Lsn(5000), None);
    rig.writer.merge(&[FIRST], &position, 0).await.unwrap();
    assert_eq!(rows(&rig.db, LOOKUP).await, ["A|one"]);
    shadow.give_back(&rig.bookkeeping).await.unwrap();
    let error = rig.writer.merge(&[FIRST], &position, 0).await.unwrap_err();
    assert!(
        error.is_transient() && error.to_string().contains("given up"),
        "{error}"
    );
    assert_eq!(rows(&rig.db, LOOKUP).await, ["A|one"]);
}

#[tokio::test]
async fn copy_whose_session_is_gone_may_lose_its_shadow_to_another() {
    let (mut rig, shadow) = rig_with_a_copy().await;
    drop(shadow);
    let _other = rig.shadow(FIRST).await;
    let position = MergePosition::Running(Lsn(5000), None);
    let error = rig.writer.merge(&[FIRST], &position, 0).await.unwrap_err();
    assert!(error.to_string().contains("given up"), "{error}");
    assert_eq!(rows(&rig.db, LOOKUP).await, ["A|one"]);
}

/// One that is being filled, or that a dump reads, is left alone; the next copy takes another or
/// empties it row by row.
#[tokio::test]
async fn shadow_that_is_in_use_is_not_emptied() {
    let (rig, shadow) = rig_with_a_copy().await;
    let model = rig.models[0].target.clone();
    let mut second = ShadowWriter::new(rig.session().await);
    let taken = second.take(&rig.bookkeeping, &model).await.unwrap();
    assert_eq!(taken.shadow_table(), "shadow_1_2");
    let mut conn = rig.session().await;
    let epoch = rig.writer.epoch();
    assert!(
        rig.bookkeeping
            .tidy(&mut conn, epoch, Readers::All)
            .await
            .unwrap(),
        "something is left"
    );
    assert_eq!(
        value(&rig.db, "SELECT count(*) FROM cdc.shadow_1_1").await,
        "1"
    );
    drop((shadow, second));
    rig.db
        .batch_execute("BEGIN; LOCK TABLE cdc.shadow_1_1 IN ACCESS SHARE MODE")
        .await
        .unwrap();
    let third = rig.shadow(FIRST).await;
    assert_eq!(
        value(&rig.db, "SELECT count(*) FROM cdc.shadow_1_1").await,
        "0"
    );
    rig.db.batch_execute("COMMIT").await.unwrap();
    drop(third);
}
