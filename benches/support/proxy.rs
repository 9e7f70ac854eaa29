//! A TCP proxy that stands for a long way: what it is given in one direction comes out half a round
//! trip later.
//!
//! Order is kept and bandwidth is not limited. It is made of threads, since the runtime's timer
//! knows whole milliseconds only. A connection that is busy is read in pieces: a proxy that wakes
//! for every message would cost more than the way.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Bytes of a piece, and how many may be under way in one direction: more than any window of TCP.
const PIECE_BYTES: usize = 256 << 10;
const MOST_PIECES: usize = 256;

/// How long a busy connection gathers between two reads.
const GATHER: Duration = Duration::from_micros(200);

/// A piece with the time at which it is due.
type Piece = (Instant, Vec<u8>);

/// Listens as long as the process lives.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
}

impl Proxy {
    /// A way of this round trip to a port of the loopback address.
    pub fn start(to: u16, round_trip: Duration) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is away looks as it does without a proxy: the connection ends.
                let _ = connect(
                    client,
                    SocketAddr::from(([127, 0, 0, 1], to)),
                    round_trip / 2,
                );
            }
        });
        Ok(Self { port })
    }

    /// The connection string by this way.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

fn connect(client: TcpStream, to: SocketAddr, delay: Duration) -> std::io::Result<()> {
    let server = TcpStream::connect(to)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    one_way(client.try_clone()?, server.try_clone()?, delay);
    one_way(server, client, delay);
    Ok(())
}

fn one_way(from: TcpStream, to: TcpStream, delay: Duration) {
    let (sender, receiver) = sync_channel(MOST_PIECES);
    thread::spawn(move || read(from, delay, &sender));
    thread::spawn(move || write(to, &receiver));
}

fn read(mut from: TcpStream, delay: Duration, pieces: &SyncSender<Piece>) {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut last = Instant::now();
    loop {
        let Ok(read) = from.read(&mut buffer) else {
            return;
        };
        let now = Instant::now();
        // Nothing is the end: it travels as long as everything else.
        if pieces.send((now + delay, buffer[..read].to_vec())).is_err() || read == 0 {
            return;
        }
        let busy = now - last < GATHER * 2;
        if busy && read < PIECE_BYTES {
            thread::sleep(GATHER);
        }
        last = now;
    }
}

fn write(mut to: TcpStream, pieces: &Receiver<Piece>) {
    while let Ok((due, piece)) = pieces.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if piece.is_empty() || to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
