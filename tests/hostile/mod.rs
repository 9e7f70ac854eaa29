//! Hostile input: whatever comes over the wire or in a connection string, the readers neither panic
//! nor hang nor allocate more than the input is long.
//!
//! The best seeds are real: the golden streams, damaged. `fuzz/` runs the same functions under
//! cargo-fuzz.

mod readers;

use proptest::prelude::*;

const STREAMS: [&[u8]; 2] = [
    include_bytes!("../golden/15.bin"),
    include_bytes!("../golden/18.bin"),
];

/// Integers that lengths and counts go wrong at.
const NUMBERS: [u32; 8] = [
    0,
    1,
    3,
    0x7FFF,
    0x8000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
];

const CONNINFOS: [&str; 6] = [
    "postgresql://ann:p%40ss@one:5432,two:5433/app?target_session_attrs=read-write&sslmode=verify-full",
    "postgres://[2001:db8::1]:6432/?host=/var/run/postgresql&application_name=x",
    "host=one,two hostaddr=10.0.0.1,10.0.0.2 port=1,2 user='a b' password='it\\'s' dbname=app",
    "service=reports connect_timeout=5\n[reports]\nhost=db\nport=5432\nuser=ann",
    "user=ann host=db dbname=app\ndb:5432:app:ann:sec\\:ret\n*:*:*:*:other",
    "postgresql:///app?sslmode=verify-ca&sslrootcert=system&channel_binding=require&keepalives_idle=10",
];

/// One thing that is done to the bytes.
#[derive(Debug, Clone)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Number(prop::sample::Index, usize),
    Cut(prop::sample::Index),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let (Self::Flip(at, _)
        | Self::Number(at, _)
        | Self::Cut(at)
        | Self::Remove(at, _)
        | Self::Repeat(at, _)
        | Self::Insert(at, _)) = self;
        if bytes.is_empty() {
            return;
        }
        let at = at.index(bytes.len());
        let to = |length: usize| (at + length).min(bytes.len());
        match self {
            Self::Flip(_, mask) => bytes[at] ^= mask,
            Self::Number(_, which) => {
                let number = NUMBERS[which % NUMBERS.len()].to_be_bytes();
                let end = to(number.len());
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            Self::Cut(_) => bytes.truncate(at),
            Self::Remove(_, length) => drop(bytes.drain(at..to(*length))),
            Self::Repeat(_, length) => {
                let again = bytes[at..to(*length)].to_vec();
                bytes.splice(at..at, again);
            }
            Self::Insert(_, more) => drop(bytes.splice(at..at, more.iter().copied())),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 1..=255_u8).prop_map(|(at, mask)| Damage::Flip(at, mask)),
        4 => (at(), 0..NUMBERS.len()).prop_map(|(at, which)| Damage::Number(at, which)),
        1 => at().prop_map(Damage::Cut),
        1 => (at(), 1..50_usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        1 => (at(), 1..50_usize).prop_map(|(at, length)| Damage::Repeat(at, length)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, more)| Damage::Insert(at, more)),
    ]
}

/// A golden stream as its CopyData messages, so that damage to one does not hide the others.
fn messages(stream: &[u8]) -> Vec<&[u8]> {
    let mut rest = stream;
    let mut messages = Vec::new();
    while let Some((header, _)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let (message, after) = rest.split_at(1 + usize::try_from(length).unwrap());
        messages.push(message);
        rest = after;
    }
    messages
}

#[test]
fn the_seeds_themselves_are_taken() {
    for stream in STREAMS {
        assert!(messages(stream).len() > 100);
        readers::frames(stream);
    }
    for text in CONNINFOS {
        readers::conninfo(text.as_bytes());
    }
}

#[test]
fn a_golden_message_cut_at_any_byte_or_with_any_byte_at_its_limit_is_read_or_refused() {
    for message in messages(STREAMS[0])
        .into_iter()
        .filter(|message| message.len() < 1_000)
    {
        for at in 0..message.len() {
            readers::frames(&message[..at]);
            readers::message(&message[at..]);
            for byte in [0, 0x7F, 0x80, 0xFF] {
                let mut damaged = message.to_vec();
                damaged[at] = byte;
                readers::frames(&damaged);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_damaged_message_is_read_or_refused(
        stream in 0..STREAMS.len(), which: prop::sample::Index, damages in prop::collection::vec(damage(), 1..5),
    ) {
        let messages = messages(STREAMS[stream]);
        // The message of the plugin, behind the header of the frame (5 bytes) and of what is in it
        // (25).
        let mut bytes = messages[which.index(messages.len())][30..].to_vec();
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        readers::message(&bytes);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        readers::frames(&bytes);
        readers::message(&bytes);
        readers::conninfo(&bytes);
    }

    #[test]
    fn a_damaged_connection_string_is_read_or_refused(
        which in 0..CONNINFOS.len(), damages in prop::collection::vec(damage(), 1..5),
    ) {
        let mut bytes = CONNINFOS[which].as_bytes().to_vec();
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        readers::conninfo(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_damaged_stream_is_read_or_refused(
        stream in 0..STREAMS.len(), damages in prop::collection::vec(damage(), 1..20),
    ) {
        let mut bytes = STREAMS[stream].to_vec();
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        readers::frames(&bytes);
    }
}
