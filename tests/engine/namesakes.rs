//! Two pipelines with the same names and different masters, in one reporting database: the second
//! one changes nothing, ends nobody's session, and is told which names to change.

use crate::support::{
    Cdc, Pair, Side, Signal, goes_on, labels_pair, own_cluster, pg, seed_labels, value,
};

const OWNER: &str = "SELECT concat_ws('|', p.epoch, p.backend_pid, p.backend_start, p.read_system_identifier, c.epoch, c.lsn IS NULL)
    FROM cdc.pipeline p, cdc.checkpoint c";

async fn output(pair: &Pair, arguments: &'static [&'static str]) -> std::process::Output {
    let pair = pair.clone();
    tokio::task::spawn_blocking(move || Cdc::output(&pair, arguments))
        .await
        .unwrap()
}

fn told(output: &std::process::Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test]
async fn second_pipeline_of_the_same_names_is_refused() {
    let other = own_cluster(Side::Source, "second-master");
    let (pair, source, target) = labels_pair().await;
    other.create_database(&pair.source_database).unwrap();
    let second = Pair {
        source_url: other.url(&pair.source_database),
        ..pair.clone()
    };
    seed_labels(&pg(&second.source_url).await).await;
    let mut cdc = Cdc::run(&pair);
    goes_on("start", &source, &target).await;
    let owner = value(&target, OWNER).await;
    for arguments in [&["run"][..], &["check"], &["resync", "--accept-new-source"]] {
        let refused = output(
            &second,
            match arguments {
                ["run"] => &["run"],
                ["check"] => &["check"],
                _ => &["resync", "--accept-new-source"],
            },
        )
        .await;
        let text = told(&refused);
        let code = if arguments == ["check"] { 1 } else { 2 };
        assert_eq!(refused.status.code(), Some(code), "{arguments:?}: {text}");
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            words.contains("another pipeline uses the bookkeeping"),
            "{arguments:?}: {text}"
        );
        assert!(words.contains("target.schema"), "{arguments:?}: {text}");
    }
    assert_eq!(
        value(&target, OWNER).await,
        owner,
        "nothing was changed, and nobody's session ended"
    );
    goes_on("beside it", &source, &target).await;
    // Its process has left: then it is a matter of the source that was copied.
    cdc.stop(Signal::Term).await;
    let checked = told(&output(&second, &["check"]).await);
    assert!(checked.contains("copied from another source"), "{checked}");
    assert!(checked.contains("target.schema"), "{checked}");
    let accepted = output(&second, &["resync", "--accept-new-source"]).await;
    assert_eq!(accepted.status.code(), Some(0), "{}", told(&accepted));
    assert!(
        told(&accepted).contains("are copied again from"),
        "{}",
        told(&accepted)
    );
}
