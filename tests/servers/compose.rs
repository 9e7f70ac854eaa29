//! docker-compose.yml and its SQL scripts, as far as they can be proved without a container engine:
//! every file it names is there, `cdc` knows every variable that it gets, the scripts run on real
//! servers, and the roles they make may do what `cdc` needs and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::{labels_pair, pg, value};
use tokio_postgres::Client;

const COMPOSE: &str = include_str!("../../docker-compose.yml");
const SOURCE_ROLES: &str = include_str!("../../sql/demo/source-roles.sql");
const TARGET_ROLES: &str = include_str!("../../sql/demo/target-roles.sql");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_file_that_compose_names_is_there() {
    let mut named = 0;
    for line in COMPOSE
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
    {
        let Some(start) = line.find("./") else {
            continue;
        };
        let path = line[start..].split([':', ' ']).next().unwrap();
        assert!(root().join(path).is_file(), "{path}");
        named += 1;
    }
    assert!(
        named >= 10,
        "only {named} files found: does this test still read the file right?"
    );
}

#[test]
fn every_secret_that_a_service_uses_is_declared() {
    let (services, declared) = COMPOSE.split_once("\nsecrets:\n").unwrap();
    for name in services
        .lines()
        .filter_map(|line| line.trim().strip_prefix("secrets: ["))
        .flat_map(|list| list.trim_end_matches(']').split(", "))
    {
        assert!(
            declared.contains(&format!("\n  {name}:\n"))
                || declared.starts_with(&format!("  {name}:\n"))
        );
    }
    for path in services
        .lines()
        .filter_map(|line| line.trim().split_once("/run/secrets/"))
        .map(|(_, name)| name)
    {
        assert!(declared.contains(&format!("  {path}:\n")), "{path}");
    }
}

#[test]
fn cdc_knows_every_variable_that_it_gets() {
    let variables: BTreeSet<&str> = COMPOSE
        .lines()
        .filter_map(|line| line.trim().split_once(": "))
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("CDC_"))
        .collect();
    assert!(variables.len() >= 4, "{variables:?}");
    let mut sources = String::new();
    read_all(&root().join("src/config"), &mut sources);
    if sources.is_empty() {
        return; // nothing reads the environment yet
    }
    for variable in variables {
        let secret = variable.strip_suffix("_FILE").unwrap_or(variable);
        assert!(sources.contains(secret), "{variable} is not read anywhere");
    }
}

#[test]
fn container_of_cdc_is_locked_down() {
    let (_, service) = COMPOSE.split_once("\n  cdc:\n").unwrap();
    let (service, _) = service.split_once("\nvolumes:\n").unwrap();
    for line in [
        "read_only: true",
        "cap_drop: [ALL]",
        "\"no-new-privileges:true\"",
        "\"/cdc\", \"status\"",
    ] {
        assert!(service.contains(line), "{line}");
    }
    let dockerfile = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    let (_, last_stage) = dockerfile.rsplit_once("\nFROM ").unwrap();
    for line in [
        "scratch\n",
        "USER 65532",
        "ENTRYPOINT [\"/cdc\"]",
        "CMD [\"run\"]",
    ] {
        assert!(last_stage.contains(line), "{line}");
    }
}

#[tokio::test]
async fn roles_may_do_what_cdc_needs_and_no_more() {
    let (pair, source, target) = labels_pair().await;
    // Twice on one server, as for a second database.
    source.batch_execute(SOURCE_ROLES).await.unwrap();
    target.batch_execute(TARGET_ROLES).await.unwrap();

    let as_cdc = |url: &str| url.replace("//postgres@", "//cdc@");
    let source_cdc = pg(&as_cdc(&pair.source_url)).await;
    allowed(&source_cdc, "SELECT * FROM labels").await;
    allowed(
        &source_cdc,
        "SELECT pg_create_logical_replication_slot('roles', 'pgoutput', true)",
    )
    .await;
    refused(&source_cdc, "UPDATE labels SET label = ''").await;
    refused(&source_cdc, "ALTER TABLE labels REPLICA IDENTITY FULL").await;
    let published = "SELECT tablename FROM pg_publication_tables WHERE pubname = 'cdc'";
    assert_eq!(value(&source, published).await, "labels");

    let target_cdc = pg(&as_cdc(&pair.target_url)).await;
    allowed(
        &target_cdc,
        "CREATE SCHEMA cdc; CREATE TEMPORARY TABLE stage (LIKE labels_lookup)",
    )
    .await;
    allowed(
        &target_cdc,
        "INSERT INTO labels_lookup VALUES ('MR', 'Mr.', 'Mister')",
    )
    .await;
    allowed(
        &target_cdc,
        "UPDATE labels_lookup SET label = 'M'; DELETE FROM labels_lookup",
    )
    .await;
    refused(&target_cdc, "SELECT * FROM resources").await;
    refused(&target_cdc, "DROP TABLE labels_lookup").await;

    let reports = pg(&pair.target_url.replace("//postgres@", "//reports@")).await;
    allowed(&reports, "SELECT * FROM labels_lookup, resources").await;
    refused(
        &reports,
        "INSERT INTO labels_lookup VALUES ('DR', 'Dr.', 'Doctor')",
    )
    .await;
}

async fn allowed(client: &Client, statement: &str) {
    if let Err(error) = client.batch_execute(statement).await {
        panic!("{statement}: {error:?}");
    }
}

async fn refused(client: &Client, statement: &str) {
    let error = client.batch_execute(statement).await.expect_err(statement);
    let code = error.code().expect(statement).code();
    assert_eq!(code, "42501", "{statement}: {error:?}");
}

fn read_all(directory: &Path, text: &mut String) {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read_all(&path, text);
        } else {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}
