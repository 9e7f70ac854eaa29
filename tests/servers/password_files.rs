//! Passwords in files of their own (`CDC_SOURCE_PASSWORD_FILE`, `CDC_TARGET_PASSWORD_FILE`): one
//! line break at the end is not a part of the password, anything else is; no message has it.

use cdc::cluster::{Cluster, Options};

use crate::support::{Cdc, Side, labels_pair};

const PASSWORD: &str = "🔑 hunter2\ttab ";

#[tokio::test]
async fn one_line_break_at_the_end_is_not_a_part_of_the_password() {
    let (pair, _source, _target) = labels_pair().await;
    let server = Cluster::start(&Options {
        name: "password-files".to_owned(),
        pg_bin: Side::Source.programs(),
        tcp: true,
        password: Some(PASSWORD.to_owned()),
        ..Options::default()
    })
    .unwrap();
    let file = server.socket_dir().join("password");
    let url = format!(
        "postgresql://postgres:wrong@127.0.0.1:{}/postgres",
        server.port()
    );
    for (text, is_right) in [
        (PASSWORD.to_owned(), true),
        (format!("{PASSWORD}\n"), true),
        (format!("{PASSWORD}\r\n"), true),
        (format!("{PASSWORD}\n\n"), false),
        (format!(" {PASSWORD}"), false),
        (PASSWORD.trim().to_owned(), false),
        (format!("\u{feff}{PASSWORD}"), false),
    ] {
        std::fs::write(&file, &text).unwrap();
        for side in ["SOURCE", "TARGET"] {
            let mut command = Cdc::command(&pair, &["check"]);
            command
                .env(format!("CDC_{side}_URL"), &url)
                .env(format!("CDC_{side}_PASSWORD_FILE"), &file);
            let output = tokio::task::spawn_blocking(move || command.output()).await;
            let output = output.unwrap().unwrap();
            let shown = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            let refused = shown.contains("password authentication failed");
            assert_eq!(!refused, is_right, "{side}, {text:?}: {shown}");
            assert!(
                !shown.contains("could not connect") || refused,
                "{side}: {shown}"
            );
            assert!(
                !shown.contains("hunter") && !shown.contains('🔑'),
                "{shown}"
            );
        }
    }
}
