//! Removes a throw-away server when its owner has ended, in whatever way.
//!
//! A small shell process holds the read end of a pipe whose other end only we have. When we close
//! that end or die (panic, abort, `kill -9`), the shell reads the end of the file, stops the server
//! and removes the directory. So there is one way of cleaning up, and it needs no destructor.
//!
//! ```text
//!  owner ──(pipe)──► sh: read ──► end of file: stop the postmaster, rm -rf the directory
//!                              └► "keep":      leave everything as it is
//! ```

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::error::{Error, Result};

/// `$1` is the directory. The number in postmaster.pid may be another process now, so the
/// postmaster is recognised by its command line, which names the directory; a zombie's command line
/// is empty. As `ps` is not everywhere, it is asked only where there is no /proc.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
cd /
word=
read -r word
[ "$word" = keep ] && exit 0
alive() {
    if [ -d /proc/self ]; then tr '\0' ' ' <"/proc/$1/cmdline"; else ps -o command= -p "$1"; fi 2>/dev/null |
        grep -qF "$2/data"
}
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && alive "$pid" "$1"; then
    kill -QUIT "$pid"
    tries=0
    while alive "$pid" "$1" && [ $tries -lt 100 ]; do
        tries=$((tries + 1))
        sleep 0.05 2>/dev/null || sleep 1
    done
    alive "$pid" "$1" && kill -KILL "$pid"
fi
# Backends write for a moment longer when their postmaster was killed.
tries=0
until rm -rf "$1" 2>/dev/null && [ ! -e "$1" ]; do
    tries=$((tries + 1))
    [ $tries -lt 10 ] || exit 1
    sleep 1
done
"#;

/// The process that cleans up after us.
#[derive(Debug)]
pub(super) struct Reaper {
    child: Child,
}

impl Reaper {
    /// Starts to watch over the directory.
    ///
    /// # Errors
    /// Transient: no process can be started.
    pub(super) fn watch(directory: &Path) -> Result<Self> {
        // A group of its own: Ctrl-C on the terminal must not end the process that cleans up.
        Command::new("/bin/sh")
            .args(["-c", SCRIPT, "cdc-reaper"])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map(|child| Self { child })
            .map_err(|error| {
                Error::transient("could not start the process that cleans up").with_source(error)
            })
    }

    /// Cleans up now, and returns when it is done.
    pub(super) fn clean(mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }

    /// Leaves everything as it is.
    pub(super) fn keep(mut self) {
        if let Some(mut pipe) = self.child.stdin.take() {
            let _ = pipe.write_all(b"keep\n");
        }
        let _ = self.child.wait();
    }
}
