//! A line to a server that counts round trips, and on which a given statement can be lost.
//!
//! A round trip begins when the client sends after the server has. In a runtime of one thread all
//! that the client sends at once is there before the line is read.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// More than is sent at once in these tests.
const PIECE: usize = 1 << 20;

/// What becomes of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The server gets it, and all answers from then on are lost.
    Unanswered,
    /// The line is cut before it reaches the server.
    Lost,
    /// It reaches the server once with another first letter, which is a syntax error.
    Spoilt,
}

#[derive(Debug, Default)]
struct State {
    round_trips: usize,
    server_spoke: bool,
    fault: Option<(&'static str, Fault)>,
    is_deaf: bool,
}

/// It passes connections on as long as its test runs.
#[derive(Debug)]
pub struct Line {
    port: u16,
    state: Arc<Mutex<State>>,
    cut: CancellationToken,
}

impl Line {
    /// A line to a port of the loopback address.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = Self {
            port: listener.local_addr().unwrap().port(),
            state: Arc::default(),
            cut: CancellationToken::new(),
        };
        let (state, cut) = (Arc::clone(&line.state), line.cut.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let there = to_the_server(from_client, to_server, Arc::clone(&state));
                let back = to_the_client(from_server, to_client, Arc::clone(&state));
                for way in [there.boxed(), back.boxed()] {
                    let cut = cut.clone();
                    tokio::spawn(async move { cut.run_until_cancelled(way).await });
                }
            }
        });
        line
    }

    /// The same connection string by this line.
    pub fn url(&self, url: &str, port: u16) -> String {
        url.replace(&format!(":{port}/"), &format!(":{}/", self.port))
    }

    /// Round trips since this was asked last.
    pub fn round_trips(&self) -> usize {
        std::mem::take(&mut self.state.lock().unwrap().round_trips)
    }

    /// What becomes of the next statement that holds this text.
    pub fn fault(&self, statement: &'static str, fault: Fault) {
        self.state.lock().unwrap().fault = Some((statement, fault));
    }

    /// Whether the statement of the fault has come since.
    pub fn has_met_fault(&self) -> bool {
        self.state.lock().unwrap().fault.is_none()
    }

    /// Cuts the line.
    pub fn cut(&self) {
        self.cut.cancel();
    }
}

async fn to_the_server(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<Mutex<State>>) {
    let mut piece = vec![0; PIECE];
    while let Ok(bytes @ 1..) = from.read(&mut piece).await {
        let sent = &mut piece[..bytes];
        let fault = state.lock().unwrap().sent(sent);
        if let Some((at, Fault::Spoilt)) = fault {
            sent[at] = b'X';
        }
        let is_lost = matches!(fault, Some((_, Fault::Lost)));
        if is_lost || to.write_all(sent).await.is_err() {
            break;
        }
    }
}

impl State {
    /// Notes what the client sends. The fault that it meets, and where.
    fn sent(&mut self, sent: &[u8]) -> Option<(usize, Fault)> {
        self.round_trips += usize::from(std::mem::take(&mut self.server_spoke));
        let (statement, fault) = self.fault?;
        let statement = statement.as_bytes();
        let at = sent
            .windows(statement.len())
            .position(|bytes| bytes == statement)?;
        self.fault = None;
        self.is_deaf = fault != Fault::Spoilt;
        Some((at, fault))
    }
}

async fn to_the_client(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<Mutex<State>>) {
    let mut piece = vec![0; PIECE];
    while let Ok(bytes @ 1..) = from.read(&mut piece).await {
        let is_deaf = {
            let mut state = state.lock().unwrap();
            state.server_spoke = true;
            state.is_deaf
        };
        if !is_deaf && to.write_all(&piece[..bytes]).await.is_err() {
            break;
        }
    }
}
