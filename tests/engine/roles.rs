//! Roles that may do no more than they must, and encrypted connections.

use std::process::Command;

use cdc::cluster::{Cluster, Options};

use crate::support::{
    self, Cdc, Side, Signal, count_log, labels_pair, labels_pair_on, rows, wait_in_step, wait_log,
};

#[tokio::test]
async fn role_that_owns_nothing_follows_a_publication_that_a_dba_made() {
    let (mut pair, source, target) = labels_pair().await;
    source
        .batch_execute(include_str!("../../sql/demo/source-roles.sql"))
        .await
        .unwrap();
    target
        .batch_execute(include_str!("../../sql/demo/target-roles.sql"))
        .await
        .unwrap();
    pair.source_url = pair.source_url.replace("postgres@", "cdc@");
    pair.target_url = pair.target_url.replace("postgres@", "cdc@");
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    source
        .batch_execute("UPDATE labels SET code = 'HERR' WHERE code = 'MR'; TRUNCATE labels; INSERT INTO labels (code, label, display_name) VALUES ('A', 'B', 'C')")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    assert_eq!(count_log(&cdc, "trying again"), 0);
    let owned = "SELECT relname FROM pg_class WHERE relowner = 'cdc'::regrole";
    assert_eq!(rows(&source, owned).await, Vec::<String>::new());
}

/// A server that takes nothing but TLS with a password on TCP.
fn secure_cluster(side: Side, name: &str) -> (Cluster, String) {
    let directory = support::source().socket_dir();
    let file = |end: &str| {
        directory
            .join(format!("{name}.{end}"))
            .to_string_lossy()
            .into_owned()
    };
    let script = format!(
        "set -e; cd '{}'
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority -keyout {name}.ca.key -out {name}.ca.crt
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=server -keyout {name}.key -out {name}.csr
         printf 'subjectAltName=IP:127.0.0.1' > {name}.ext
         openssl x509 -req -in {name}.csr -CA {name}.ca.crt -CAkey {name}.ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.crt",
        directory.display()
    );
    let output = Command::new("/bin/sh")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let read = |end: &str| std::fs::read_to_string(file(end)).unwrap();
    let hba = "local all all trust\nhostssl all all all scram-sha-256\nhostssl replication all all scram-sha-256\n";
    let cluster = Cluster::start(&Options {
        name: name.to_owned(),
        pg_bin: side.programs(),
        tcp: true,
        password: Some("p:w/'d ä".to_owned()),
        settings: vec![("ssl".to_owned(), "on".to_owned())],
        files: vec![
            ("server.crt".to_owned(), read("crt")),
            ("server.key".to_owned(), read("key")),
            ("pg_hba.conf".to_owned(), hba.to_owned()),
        ],
        ..Options::default()
    });
    (cluster.unwrap(), file("ca.crt"))
}

#[tokio::test]
async fn every_connection_is_encrypted_and_authenticated() {
    let ((source_cluster, source_ca), (target_cluster, target_ca)) = (
        secure_cluster(Side::Source, "tls-source"),
        secure_cluster(Side::Target, "tls-target"),
    );
    let (mut pair, source, target) = labels_pair_on(&source_cluster, &target_cluster).await;
    let url = |cluster: &Cluster, database: &str, ca: &str| {
        format!(
            "{}?sslmode=verify-full&sslrootcert={ca}&channel_binding=require&require_auth=scram-sha-256",
            cluster.tcp_url(database)
        )
    };
    pair.source_url = url(&source_cluster, &pair.source_database, &source_ca);
    pair.target_url = url(&target_cluster, &pair.target_database, &target_ca);
    let mut cdc = Cdc::run(&pair);
    wait_in_step(&source, &target).await;
    wait_log(&cdc, "streaming").await;
    source
        .batch_execute("UPDATE labels SET label = 'safe' WHERE code = 'MR'")
        .await
        .unwrap();
    wait_in_step(&source, &target).await;
    let ssl = "SELECT bool_and(ssl), count(*) > 0 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'cdc %'";
    for side in [&source, &target] {
        assert_eq!(rows(side, ssl).await, ["t|t"]);
    }
    assert_eq!(cdc.stop(Signal::Term).await.code(), Some(0));
    assert_eq!(count_log(&cdc, "trying again"), 0);
    assert!(
        !cdc.log().contains("p:w") && !cdc.log().contains("p%3Aw"),
        "a password in the log"
    );
    // The other side's authority did not sign this certificate.
    pair.source_url = url(&source_cluster, &pair.source_database, &target_ca);
    let cdc = Cdc::run(&pair);
    wait_log(&cdc, "certificate").await;
}
