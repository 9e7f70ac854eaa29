//! The log goes into a pipe that nobody reads: lines are dropped and counted, and the process
//! neither stops replicating nor misses a signal.

use std::io::Read as _;

use crate::support::{Cdc, Signal, goes_on, labels_pair};

/// At log level debug each row makes a line: far more than the 64 kB that a pipe takes and the
/// thousand lines that wait.
const MANY: &str = "INSERT INTO labels (code, label, display_name) SELECT 'C' || n, 'l', 'd' FROM generate_series(1, 4000) n";

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let (pair, source, target) = labels_pair().await;
    let (mut cdc, mut pipe) = Cdc::start_into_pipe(&mut Cdc::command(&pair, &["run"]));
    goes_on("start", &source, &target).await;
    source.batch_execute(MANY).await.unwrap();
    goes_on("the pipe is full", &source, &target).await;
    // Some of it is read, and there is room for lines again.
    pipe.read_exact(&mut vec![0; 60 << 10]).unwrap();
    goes_on("the pipe is read", &source, &target).await;
    let reader = std::thread::spawn(move || {
        let mut rest = String::new();
        pipe.read_to_string(&mut rest).map(|_| rest)
    });
    assert!(cdc.stop(Signal::Term).await.success());
    let rest = reader.join().unwrap().unwrap();
    assert!(rest.contains("lines of the log were dropped"), "{rest}");
}

#[tokio::test]
async fn a_log_that_nobody_reads_does_not_keep_the_process() {
    let (pair, source, target) = labels_pair().await;
    let (mut cdc, _pipe) = Cdc::start_into_pipe(&mut Cdc::command(&pair, &["run"]));
    goes_on("start", &source, &target).await;
    source.batch_execute(MANY).await.unwrap();
    goes_on("the pipe is full", &source, &target).await;
    assert!(cdc.stop(Signal::Term).await.success());
}
