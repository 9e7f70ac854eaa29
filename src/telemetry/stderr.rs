//! Stderr belongs to a thread of its own: no other part of the process waits for it.
//!
//! A pipe without a reader is full after 64 kB. A write to it then waits, and a process that waits
//! there neither replicates nor hears SIGTERM. So lines go through a queue of bounded length. Lines
//! that find it full are dropped and counted, and the count is logged once stderr takes lines
//! again.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::line::Line;

/// Most lines that wait: some hundred kilobytes.
const MOST_WAITING: usize = 1_000;

/// How long the end of the process waits for the last lines.
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);

/// How long it waits between two looks at a queue that is full.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// What the thread is asked to do.
enum Order {
    /// Write whole lines.
    Write(Vec<u8>),
    /// Show this text in the last line of a terminal; an empty one clears it.
    Show(String),
    /// Say when everything before is written.
    Flush(SyncSender<()>),
}

static QUEUE: OnceLock<SyncSender<Order>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Starts the thread, once.
pub(super) fn start(terminal: bool) {
    QUEUE.get_or_init(|| {
        let (orders, inbox) = sync_channel(MOST_WAITING);
        let started = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || carry_out(&inbox, Line::new(terminal)));
        // A system without room for a thread: everything is dropped, and nothing waits.
        let _ = started;
        orders
    });
}

/// Hands lines over, or writes them here before the thread is started.
pub(super) fn write(lines: &[u8]) -> io::Result<()> {
    match QUEUE.get() {
        None => io::Write::write_all(&mut io::stderr().lock(), lines),
        Some(orders) => {
            if orders.try_send(Order::Write(lines.to_vec())).is_err() {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }
    }
}

/// Shows a text in the last line of the terminal; if the queue is full, it is lost, but the next
/// one follows soon.
pub(super) fn show(text: String) {
    if let Some(orders) = QUEUE.get() {
        let _ = orders.try_send(Order::Show(text));
    }
}

/// Waits until everything is written, but not for a missing reader.
pub(crate) fn flush() {
    let Some(orders) = QUEUE.get() else { return };
    let end = Instant::now() + FLUSH_PATIENCE;
    let (written, done) = sync_channel(1);
    let mut order = Order::Flush(written);
    while let Err(TrySendError::Full(back)) = orders.try_send(order) {
        if Instant::now() >= end {
            return;
        }
        order = back;
        std::thread::sleep(FULL_PAUSE);
    }
    let _ = done.recv_timeout(end.saturating_duration_since(Instant::now()));
}

fn carry_out(inbox: &Receiver<Order>, mut line: Line) {
    loop {
        let order = match inbox.try_recv() {
            Ok(order) => Some(order),
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {
                report_dropped();
                inbox.recv().ok()
            }
        };
        let mut out = io::stderr().lock();
        // Nothing can be done if stderr is closed.
        let _ = match order {
            Some(Order::Write(lines)) => line.write(&mut out, &lines),
            Some(Order::Show(text)) => line.show(&mut out, &text),
            Some(Order::Flush(written)) => {
                flushed(written);
                Ok(())
            }
            None => return,
        };
    }
}

/// Everything before is written, unless lines were dropped: then their count comes first.
fn flushed(written: SyncSender<()>) {
    let again = report_dropped().then(|| QUEUE.get()).flatten();
    match again.map(|orders| orders.try_send(Order::Flush(written.clone()))) {
        Some(Ok(())) => {}
        Some(Err(_)) | None => {
            let _ = written.try_send(());
        }
    }
}

/// Logs how many lines were dropped, if any were; there is room in the queue again.
fn report_dropped() -> bool {
    let lines = DROPPED.swap(0, Ordering::Relaxed);
    if lines > 0 {
        tracing::warn!(
            lines,
            "lines of the log were dropped: nobody read standard error"
        );
    }
    lines > 0
}
