//! Where a throw-away server lives: its directory, its port, and how both are written in a URL.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Longest path of a Unix socket on Linux is 107 bytes; 20 are the socket's own name.
const MAX_DIRECTORY_BYTES: usize = 80;
/// Below the ports that systems give to outgoing connections, so that a stopped server gets its own
/// back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Creates an empty directory that only we can enter, with a path short enough for a socket.
pub(super) fn make_directory(name: &str) -> Result<PathBuf> {
    let preferred = std::env::temp_dir();
    let parent =
        if preferred.as_os_str().len() <= MAX_DIRECTORY_BYTES / 2 && open_to_all(&preferred) {
            preferred
        } else {
            PathBuf::from("/tmp")
        };
    let name: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(20)
        .collect();
    loop {
        let number = fastrand::u32(..);
        let directory = parent.join(format!("cdc-{name}-{number:08x}"));
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let text = format!("could not make directory \"{}\"", directory.display());
                return Err(Error::transient(text).with_source(error));
            }
        }
    }
}

/// Whether another account can reach what is in the directory.
fn open_to_all(directory: &Path) -> bool {
    directory
        .ancestors()
        .all(|part| fs::metadata(part).is_ok_and(|facts| facts.permissions().mode() & 0o001 != 0))
}

/// A port of the loopback address that is free now.
pub(super) fn free_port() -> Result<u16> {
    (0..1_000)
        .map(|_| fastrand::u16(PORTS))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| Error::transient("could not find a free port on 127.0.0.1"))
}

/// Encodes everything but letters, digits and `-._~` (RFC 3986, unreserved characters).
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_passwords_are_encoded_for_an_url() {
        assert_eq!(percent_encode("/tmp/cdc-1"), "%2Ftmp%2Fcdc-1");
        assert_eq!(percent_encode("p@ss:w/ö%"), "p%40ss%3Aw%2F%C3%B6%25");
    }

    #[test]
    fn directory_is_short_enough_for_a_socket_and_closed_to_others() {
        let directory = make_directory("a name that is much longer than it has to be").unwrap();
        let mode = fs::metadata(&directory).unwrap().permissions().mode();
        fs::remove_dir(&directory).unwrap();
        assert!(directory.as_os_str().len() <= MAX_DIRECTORY_BYTES);
        assert_eq!(mode & 0o777, 0o700);
    }
}
