//! A target that takes TLS as well as plain connections, with a certificate of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use cdc::cluster::{Cluster, Options};

/// The server, and what to add to its URL for TLS with the certificate verified.
pub fn server(name: &str, directory: &Path) -> Result<(Cluster, String)> {
    certify(name, directory)?;
    let file = |end: &str| directory.join(format!("{name}.{end}"));
    let options = Options {
        files: vec![
            ("server.crt".to_owned(), fs::read_to_string(file("crt"))?),
            ("server.key".to_owned(), fs::read_to_string(file("key"))?),
        ],
        ..super::options(name, true, &[("ssl", "on")])
    };
    let authority = file("ca.crt");
    let tls = format!("sslmode=verify-full&sslrootcert={}", authority.display());
    Ok((Cluster::start(&options)?, tls))
}

/// An authority, and a certificate for the loopback address.
fn certify(name: &str, directory: &Path) -> Result<()> {
    let script = format!(
        "set -e; cd \"$0\"
         new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
         openssl req -x509 $new -days 2 -subj /CN=authority -keyout {name}.ca.key -out {name}.ca.crt
         openssl req $new -subj /CN=server -keyout {name}.key -out {name}.csr
         printf 'subjectAltName=IP:127.0.0.1' > {name}.ext
         openssl x509 -req -in {name}.csr -CA {name}.ca.crt -CAkey {name}.ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.crt"
    );
    let made = Command::new("/bin/sh")
        .args(["-c", &script])
        .arg(directory)
        .output()?;
    if !made.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(())
}
