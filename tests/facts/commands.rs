//! check, setup, status and teardown on a real server.

use cdc::check::Severity;
use cdc::cli::stop::Stop;
use cdc::cli::{check, setup, status, teardown};
use cdc::connect::{Connection, Side, Wanted};
use cdc::conninfo::{Conninfo, Host};
use cdc::settings::{ReadModelSettings, ResyncSettings, Settings, SourceSettings, TargetSettings};
use cdc::status::Verdict;
use cdc::{source, target};

use super::cluster::Cluster;

const MASTER: &str = "
    CREATE TABLE labels (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), code varchar(10) NOT NULL,
        label varchar(50) NOT NULL, display_name varchar(50) NOT NULL, deleted_at timestamptz);
    INSERT INTO labels (code, label, display_name) VALUES ('MR', 'Mr', 'Mister'), ('MS', 'Ms', 'Miss'), ('MS', 'Ms', 'Miss');
";

fn settings(cluster: &Cluster) -> Settings {
    let conninfo = Conninfo {
        hosts: vec![Host {
            host: cluster.dir.display().to_string(),
            address: None,
            port: 5432,
        }],
        database: "postgres".to_owned(),
        user: "postgres".to_owned(),
        ..Conninfo::default()
    };
    Settings {
        source: SourceSettings {
            conninfo: conninfo.clone(),
            publication: "cdc".to_owned(),
            slot: "cdc".to_owned(),
            max_retained_wal: None,
            failover: true,
            publish_projected_columns: false,
        },
        target: TargetSettings {
            conninfo,
            schema: "cdc".to_owned(),
            synchronous_commit: true,
        },
        read_models: vec![ReadModelSettings::labels()],
        resync: ResyncSettings::default(),
        status_interval: std::time::Duration::from_secs(10),
        log_level: "info".to_owned(),
    }
}

#[tokio::test(flavor = "current_thread")]
async fn commands_work_from_nothing_to_teardown() {
    let cluster = Cluster::start("commands");
    let settings = settings(&cluster);
    let admin = cluster.source("postgres").await;
    missing_table_is_found(&settings).await;
    admin
        .batch_execute(&format!(
            "SET search_path = public; {MASTER} RESET search_path"
        ))
        .await
        .unwrap();
    first_check_is_ready(&settings).await;
    assert_eq!(status::look(&settings).await.verdict, Verdict::New);
    setup_is_idempotent(&cluster, &settings, &admin).await;
    status_follows_the_bookkeeping(&settings, &admin).await;
    teardown_takes_away_only_its_own(&cluster, &settings, &admin).await;
    unreachable_side_is_said(&settings).await;
}

async fn missing_table_is_found(settings: &Settings) {
    let findings = check::findings(settings).await;
    assert!(
        findings
            .iter()
            .any(|finding| finding.message == "the table does not exist at the source"),
        "{findings:#?}"
    );
    assert!(!check::execute(settings, true).await.unwrap());
    let error = setup::execute(settings, false).await.unwrap_err();
    assert!(
        error.message().contains("does not exist at the source"),
        "{error:?}"
    );
}

async fn first_check_is_ready(settings: &Settings) {
    assert!(check::execute(settings, false).await.unwrap());
    let findings = check::findings(settings).await;
    let found = |severity, part: &str| {
        findings
            .iter()
            .any(|finding| finding.severity == severity && finding.message.contains(part))
    };
    assert!(
        found(
            Severity::Warning,
            "1 key (code) belongs to more than one live row"
        ),
        "{findings:#?}"
    );
    assert!(
        found(Severity::Note, "the publication does not exist"),
        "{findings:#?}"
    );
    assert!(
        found(Severity::Note, "the table does not exist; cdc setup"),
        "{findings:#?}"
    );
}

async fn setup_is_idempotent(
    cluster: &Cluster,
    settings: &Settings,
    admin: &tokio_postgres::Client,
) {
    assert!(setup::execute(settings, true).await.unwrap());
    assert!(
        source::facts::publication(admin, "cdc")
            .await
            .unwrap()
            .is_none(),
        "--print-sql only prints"
    );
    let all_before = all_sql_runs(settings, admin).await;
    assert!(setup::execute(settings, false).await.unwrap());
    assert!(setup::execute(settings, false).await.unwrap());
    // The lookup that cdc has made is the one whose functions were printed before.
    let all = setup::all_sql(settings).await.unwrap();
    let functions = |script: &str| {
        script
            .split_once("-- The tables that stay")
            .unwrap()
            .1
            .to_owned()
    };
    assert!(
        functions(&all) == functions(&all_before),
        "{all_before}\n{all}"
    );
    assert!(
        all.contains("-- Table public.labels_lookup is there and stays as it is."),
        "{all}"
    );
    let made = source::facts::publication(admin, "cdc")
        .await
        .unwrap()
        .unwrap();
    let comment = made.comment.unwrap();
    assert!(
        comment
            .starts_with("made by cdc for slot \"cdc\" (bookkeeping: schema \"cdc\" of database"),
        "{comment}"
    );
    assert!(
        source::facts::slot(admin, "cdc").await.unwrap().is_none(),
        "setup never makes the slot"
    );
    let mut conn = cluster.target("postgres").await;
    let lookup = target::facts::table(&mut conn, &settings.read_models[0].target)
        .await
        .unwrap()
        .unwrap();
    assert!(
        lookup
            .key_index(&settings.read_models[0].key)
            .unwrap()
            .primary
    );
    assert_eq!(
        target::presence::presence(&mut conn, "cdc").await.unwrap(),
        target::presence::Presence::Ours
    );
    assert_eq!(
        target::presence::presence(&mut conn, "nowhere")
            .await
            .unwrap(),
        target::presence::Presence::Missing
    );
    assert_eq!(
        target::presence::presence(&mut conn, "public")
            .await
            .unwrap(),
        target::presence::Presence::Foreign
    );
    let findings = check::findings(settings).await;
    assert!(
        findings
            .iter()
            .all(|finding| finding.severity != Severity::Error),
        "{findings:#?}"
    );
    assert!(
        !findings
            .iter()
            .any(|finding| finding.message.contains("does not exist")),
        "{findings:#?}"
    );
}

/// What `--print-sql --all` prints can be run as it is, and needs nothing but an empty database.
async fn all_sql_runs(settings: &Settings, admin: &tokio_postgres::Client) -> String {
    let script = setup::all_sql(settings).await.unwrap();
    for part in [
        "CREATE SCHEMA IF NOT EXISTS \"cdc\"",
        "COMMENT ON TABLE \"cdc\".checkpoint",
        "FUNCTION pg_temp.cdc_advance(",
        "CREATE TABLE \"public\".\"labels_lookup\"",
        "\"cdc\".map_1 (i1 uuid NOT NULL",
        "\"cdc\".rejected_1 (",
        "UNLOGGED TABLE \"cdc\".shadow_1_1 (",
        "FUNCTION pg_temp.merge_1(",
        "FUNCTION pg_temp.merge_read_once_1(",
        "FUNCTION pg_temp.isolate_shadow_1(",
        "FUNCTION pg_temp.apply_1(",
        "FUNCTION pg_temp.fold_chunk_1(",
        "FUNCTION pg_temp.catch_up_1(",
    ] {
        assert!(script.contains(part), "{part}: {script}");
    }
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc'";
    let found: i64 = admin.query_one(schemas, &[]).await.unwrap().get(0);
    assert_eq!(found, 0, "--print-sql --all only prints");
    admin
        .batch_execute("CREATE DATABASE printed")
        .await
        .unwrap();
    let conninfo = Conninfo {
        database: "printed".to_owned(),
        ..settings.target.conninfo.clone()
    };
    let printed = Connection::open(Side::Source, &conninfo, "cdc test", Wanted::Any)
        .await
        .unwrap();
    printed.batch_execute(&script).await.unwrap();
    // The functions are compiled when they are called.
    printed
        .batch_execute(
            "INSERT INTO cdc.read_model (name, source, definition) VALUES ('public.labels_lookup', 'public.labels', '{}');
             SELECT pg_temp.catch_up_1(false, false); SELECT pg_temp.fold_chunk_1(false, false, false);
             SELECT pg_temp.merge_1(true, true, 1); SELECT pg_temp.merge_read_once_1(false, true, 1);
             SELECT pg_temp.isolate_1(true, true, 1, true, false, '0/1'); SELECT pg_temp.isolate_shadow_1(false, true, 1, true, false, '0/1')",
        )
        .await
        .unwrap();
    script
}

async fn status_follows_the_bookkeeping(settings: &Settings, admin: &tokio_postgres::Client) {
    assert_eq!(
        status::look(settings).await.verdict,
        Verdict::New,
        "the bookkeeping alone is no run"
    );
    admin
        .batch_execute(
            "INSERT INTO cdc.pipeline (slot, publication, state, heartbeat_at, owner)
                 VALUES ('cdc', 'cdc', 'streaming', now(), 'host:1');
             UPDATE cdc.checkpoint SET (lsn, commit_time, applied_at) = ('0/1', now(), now());
             INSERT INTO cdc.read_model (name, source, definition, state, last_resync_at, last_resync_repaired)
                 VALUES ('public.labels_lookup', 'public.labels', '{}', 'in_step', now(), 1);
             INSERT INTO cdc.counted (read_model, rows) SELECT id, 2 FROM cdc.read_model;
             INSERT INTO cdc.resync (origin, state, result) VALUES ('schedule', 'done', '{\"public.labels_lookup\": {\"updated\": 1}}')",
        )
        .await
        .unwrap();
    admin
        .batch_execute("SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')")
        .await
        .unwrap();
    let seen = status::look(settings).await;
    assert_eq!(seen.verdict, Verdict::Ok, "{seen:#?}");
    assert!(seen.healthy && seen.pipeline.as_ref().unwrap().alive);
    let schedule = seen.resync_schedule.as_ref().unwrap();
    assert!(
        schedule.delay_seconds == 0 && schedule.next_at.as_ref().unwrap().ends_with("T02:00:00Z"),
        "{schedule:?}"
    );
    let model = &seen.read_models[0];
    assert_eq!((model.state.as_str(), model.rows), ("in_step", Some(2)));
    assert!(model.age_seconds.is_some_and(|age| age < 60.0), "{model:?}");
    assert_eq!(model.last_resync.as_ref().unwrap().repaired, 1);
    assert_eq!(
        seen.resyncs[0].result.as_ref().unwrap()["public.labels_lookup"]["updated"],
        1
    );
    assert!(
        seen.checkpoint
            .as_ref()
            .unwrap()
            .applied_at
            .as_ref()
            .unwrap()
            .ends_with('Z')
    );
    assert!(
        status::execute(settings, true, false, &Stop::new())
            .await
            .unwrap()
    );

    let running = teardown::execute(settings, true, false).await.unwrap_err();
    assert!(
        running.message().contains("cdc is running (host:1)"),
        "{running:?}"
    );
    admin
        .batch_execute("UPDATE cdc.pipeline SET heartbeat_at = now() - interval '1 hour'; UPDATE cdc.checkpoint SET applied_at = now() - interval '1 hour'")
        .await
        .unwrap();
    assert_eq!(status::look(settings).await.verdict, Verdict::Stopped);
    // A session that is there counts as life, whatever the heartbeat says.
    admin
        .batch_execute(
            "UPDATE cdc.pipeline SET (backend_pid, backend_start) =
                 (SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())",
        )
        .await
        .unwrap();
    assert_eq!(status::look(settings).await.verdict, Verdict::Ok);
    admin
        .batch_execute("UPDATE cdc.pipeline SET backend_pid = NULL")
        .await
        .unwrap();
}

async fn teardown_takes_away_only_its_own(
    cluster: &Cluster,
    settings: &Settings,
    admin: &tokio_postgres::Client,
) {
    admin
        .batch_execute(
            "INSERT INTO public.labels_lookup VALUES ('MR', 'Mr', 'Mister');
             CREATE VIEW public.mine AS SELECT * FROM cdc.freshness;
             CREATE PUBLICATION other FOR TABLE public.labels",
        )
        .await
        .unwrap();
    assert!(
        teardown::execute(settings, false, false).await.is_err(),
        "nobody can be asked, and --yes is missing"
    );
    assert!(
        !teardown::execute(settings, true, false).await.unwrap(),
        "a view of somebody else's reads the schema"
    );
    assert!(source::facts::slot(admin, "cdc").await.unwrap().is_none());
    assert!(
        source::facts::publication(admin, "cdc")
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        source::facts::publication(admin, "other")
            .await
            .unwrap()
            .is_some()
    );
    let mut conn = cluster.target("postgres").await;
    assert_eq!(
        target::presence::presence(&mut conn, "cdc").await.unwrap(),
        target::presence::Presence::Ours
    );
    admin.batch_execute("DROP VIEW public.mine").await.unwrap();
    assert!(teardown::execute(settings, true, false).await.unwrap());
    assert_eq!(
        target::presence::presence(&mut conn, "cdc").await.unwrap(),
        target::presence::Presence::Missing
    );
    let rows = || async {
        let row = admin
            .query_one("SELECT count(*) FROM public.labels_lookup", &[])
            .await
            .unwrap();
        row.get::<_, i64>(0)
    };
    assert_eq!(rows().await, 1, "the lookup's rows stay");
    assert!(teardown::execute(settings, true, true).await.unwrap());
    assert_eq!(rows().await, 0);

    let other = Settings {
        source: SourceSettings {
            publication: "other".to_owned(),
            ..settings.source.clone()
        },
        ..settings.clone()
    };
    assert!(teardown::execute(&other, true, false).await.unwrap());
    assert!(
        source::facts::publication(admin, "other")
            .await
            .unwrap()
            .is_some(),
        "made by somebody else"
    );
}

async fn unreachable_side_is_said(settings: &Settings) {
    let mut settings = settings.clone();
    settings.source.conninfo.hosts[0].port = 1;
    let seen = status::look(&settings).await;
    assert!(!seen.source.reachable && seen.target.reachable && !seen.healthy);
    assert!(seen.source.error.is_some());
    let findings = check::findings(&settings).await;
    assert!(
        findings
            .iter()
            .any(|finding| finding.subject == "source" && finding.severity == Severity::Error)
    );
}
