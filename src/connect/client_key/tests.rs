//! Keys as openssl writes them, in each way of encryption. The password is `hunter2`.

use super::*;
use std::os::unix::fs::PermissionsExt as _;

/// `openssl genpkey`
const PLAIN: &str = "-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg2DVCBfy0DzFx+0pc\n\
rVTuon2VXaXbIoM5NqiUzRbf4rGhRANCAARuI2i3akxOekmH6j4xjx54L3a32B2Y\n\
0WJ682Q2eY2bajILRKcg8NTxQVdpGasefJoHETRZ78fuk+w2rKTJKpS9\n\
-----END PRIVATE KEY-----\n";

/// `openssl pkcs8 -topk8`
const AES_256: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n\
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjeLmmomakHVQICCAAw\n\
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEBGkzx+8KwmqkOxtEu03AZkEgZBm\n\
RaDaY4paaGzQFgci60/VCsq/8i/Bu8poi7BemMj/hX3eDDu+NYYhReCXLZafDXSC\n\
wMpPpOqxOYOGCBvxXJ/hbl15MFC9cz5HBku6GC2+QOV1uH93F5TwyMEx55fLCHIa\n\
YJSNGRh19viZR9RphmHGLTS8c6xtGp8f+OJ8P8cCM+oxZgGG3cwkr1+rI84gQ08=\n\
-----END ENCRYPTED PRIVATE KEY-----\n";

/// `-scrypt`
const SCRYPT: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n\
MIHkME8GCSqGSIb3DQEFDTBCMCEGCSsGAQQB2kcECzAUBAiluFMQJHKR7AICQAAC\n\
AQgCAQEwHQYJYIZIAWUDBAEqBBDN4Ow1ExQBx5UQX4K6u4d/BIGQOBOOP9MCx6l2\n\
hS1sTAIP3LJe9ftMD93nC6CKAJNchEou9DUtzDhdv3UotQRYt7dsA4zpSNrtnhN4\n\
1APE59Jk1JmU/5LwF4mHvRvSHxzUoeFk8K5g0MvDNAt35mdbt9TSZZmhr+euIBeF\n\
zLAKzQKEIQIXpVr3f9tfwMVa20ZWOykVwpTr/W0p0u79DcBjqfzi\n\
-----END ENCRYPTED PRIVATE KEY-----\n";

/// `-v2 aes-128-cbc -v2prf hmacWithSHA1`
const SHA_1: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n\
MIHeMEkGCSqGSIb3DQEFDTA8MBsGCSqGSIb3DQEFDDAOBAgx23GlExu+MAICCAAw\n\
HQYJYIZIAWUDBAECBBDznzzExTpe8G5UBp5uH0OdBIGQFXq1zBYtVpqebS3zeDyN\n\
+Tf12miDN09z9EmhTTijsO6fZEmuRnKNmzQulISP17P2mUXuwXZeHyiSA1G/KBYM\n\
8owyQFOoAbj3uCjdv8LuTxUSCC303uKKnx4thxEORnm2pY9jFs8tHzE2+o4UkOmG\n\
B+qWPGBd7mDcLuIQykMwKCP8Sywp3qfytwIF5wrP2sEl\n\
-----END ENCRYPTED PRIVATE KEY-----\n";

/// `-v2 des3`
const DES_3: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n\
MIHjME4GCSqGSIb3DQEFDTBBMCkGCSqGSIb3DQEFDDAcBAgdDYtiPzbHLAICCAAw\n\
DAYIKoZIhvcNAgkFADAUBggqhkiG9w0DBwQIvH9aIdxVLQYEgZCFGp0QkOHV7gXX\n\
w4LWMdRv2JislwQUMdpU/9l6iiWzl4jNT63QrQoQ+0MiGZksMALRMDWEr26JFHvO\n\
tLBQWY6f9AlzYEb10n5+JefCoV9DUcTCemquye++jAoSFWnBi4Q/N2OwUqLGvysl\n\
2fbzjMAfv+OISl1w48Sak75lLgl8+wbZAVQvknf5WpcUFGDYrY0=\n\
-----END ENCRYPTED PRIVATE KEY-----\n";

/// `-v1 PBE-MD5-DES`
const PBES1: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n\
MIGwMBsGCSqGSIb3DQEFAzAOBAglOJQJ/cZa8gICCAAEgZDFb9c9W82zj87egyPI\n\
5T144vn9kPd1L3VMqOTuW1W3Jeinh1vobSM6Q0jwDG9sZ9hR/6aBsVzg/epu4ZVZ\n\
BG0GobPhnMbHlzev7ZTwbteBR7VjJfwR/xlYKwYVfxtRN+sqMXX/gKYXy6rw5mGL\n\
jTIFKypbddPbio+p9Fs0B/BQOpZJxNaU5eHH3xN4S0IHDRU=\n\
-----END ENCRYPTED PRIVATE KEY-----\n";

/// `openssl ec -aes256`
const OLD: &str = "-----BEGIN EC PRIVATE KEY-----\n\
Proc-Type: 4,ENCRYPTED\n\
DEK-Info: AES-256-CBC,F73EDC1F07708AA22E425353B73ACCB4\n\
\n\
5Wg+SrrK7667if+ivAYt3cGlCCwUypxpNlga7dKGBzO5pMf2AR1JEvfCTvqQl5o7\n\
itwTqK6G/hzu8LiNeN6Ncg00Knym72uLu2GBx3urWOOKTDWS5tHWof6YfoS8d27C\n\
bLqofpihFaZMwXeHycjdXuNiHsWeRWW3vuiBGmJY1+U=\n\
-----END EC PRIVATE KEY-----\n";

/// Reads the key from a file with these permissions.
fn read(text: &str, password: Option<&str>, mode: u32) -> Result<PrivateKeyDer<'static>, String> {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("cdc-key-{}-{number}", std::process::id()));
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    let password = password.map(Secret::new);
    let key = private_key(&file, password.as_ref());
    std::fs::remove_file(&file).unwrap();
    key.map_err(|error| {
        assert_eq!(error.class(), crate::error::Class::Configuration);
        format!("{error:?}").replace(&file.display().to_string(), "FILE")
    })
}

#[test]
fn an_encrypted_key_is_the_plain_one() {
    let plain = read(PLAIN, None, 0o600).unwrap();
    // openssl pkcs12 writes a few lines before the key.
    let with_lines = format!("Bag Attributes\n    friendlyName: x\n{AES_256}");
    let with_other_ends = AES_256.replace('\n', "\r\n");
    for text in [AES_256, SCRYPT, &with_lines, &with_other_ends] {
        assert_eq!(read(text, Some("hunter2"), 0o600).unwrap(), plain, "{text}");
    }
    // A password for a key without one is ignored, as libpq does.
    assert_eq!(read(PLAIN, Some("hunter2"), 0o600).unwrap(), plain);
}

#[test]
fn a_key_that_cannot_be_decrypted_says_what_to_do() {
    let cannot = "Configuration: cannot decrypt the client's key \"FILE\": ";
    let convert = "(hint: Convert it: openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256 -in FILE -out NEW_FILE)";
    for (text, password, expected, hint) in [
        (
            AES_256,
            None,
            "its password is missing",
            "(hint: Give it in sslpassword.)",
        ),
        (
            AES_256,
            Some("hunter3"),
            "its password is wrong",
            "(hint: Correct sslpassword.)",
        ),
        (
            AES_256,
            Some(""),
            "its password is wrong",
            "(hint: Correct sslpassword.)",
        ),
        (
            SCRYPT,
            Some("hunter3"),
            "its password is wrong",
            "(hint: Correct sslpassword.)",
        ),
        (
            SHA_1,
            Some("hunter2"),
            "it is encrypted in a way that cdc does not read",
            convert,
        ),
        (
            DES_3,
            Some("hunter2"),
            "it is encrypted in a way that cdc does not read",
            convert,
        ),
        (
            PBES1,
            Some("hunter2"),
            "it is encrypted in a way that cdc does not read",
            convert,
        ),
        (
            OLD,
            Some("hunter2"),
            "it is encrypted in OpenSSL's old way, not by PKCS#8",
            convert,
        ),
        (
            OLD,
            None,
            "it is encrypted in OpenSSL's old way, not by PKCS#8",
            convert,
        ),
        (
            &AES_256.replace("MIHsM", "MIHsX"),
            Some("hunter2"),
            "it is encrypted in a way",
            convert,
        ),
        (
            &AES_256.replace("MIHsM", "!"),
            Some("hunter2"),
            "it is encrypted in a way",
            convert,
        ),
    ] {
        let shown = read(text, password, 0o600).unwrap_err();
        let rest = shown.strip_prefix(cannot).unwrap_or_default();
        assert!(
            rest.starts_with(expected) && rest.ends_with(hint),
            "{shown}"
        );
        assert!(!shown.contains("hunter"), "{shown}");
    }
}

#[test]
fn a_key_that_others_may_read_is_not_taken_encrypted_or_not() {
    for text in [PLAIN, AES_256] {
        let shown = read(text, Some("hunter2"), 0o644).unwrap_err();
        assert!(
            shown.contains("the client's key \"FILE\" may be read by others"),
            "{shown}"
        );
    }
}

#[test]
fn what_is_no_key_is_not_read() {
    for text in [
        "",
        "nonsense",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----",
        &PLAIN[..80],
    ] {
        let shown = read(text, None, 0o600).unwrap_err();
        assert!(
            shown.contains("cannot read the client's key \"FILE\""),
            "{shown}"
        );
    }
    let missing = private_key(Path::new("/nowhere/key"), None).unwrap_err();
    assert!(missing.to_string().contains("No such file"), "{missing}");
}
