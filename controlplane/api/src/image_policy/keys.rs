//! Public keys in PEM, as `cosign generate-key-pair` and `openssl pkey -pubout` write them.

use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// How many keys one annotation may hold: each of an image's signatures is tried with each.
const KEYS: usize = 16;

/// The bits that an RSA key may have.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The characters of a value that an error shows.
const SHOWN: usize = 40;

/// What kind of key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256, cosign's own choice.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// Ed25519.
    Ed25519,
    /// RSA of 2048 to 8192 bits.
    Rsa,
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// What kind it is.
    pub kind: KeyKind,
    /// The key alone: an uncompressed point, the 32 bytes of Ed25519, or the `RSAPublicKey` of PKCS #1.
    pub bytes: Vec<u8>,
}

/// Reads one public key or several; the error is the part that is wrong and what is wrong with it.
pub(super) fn public_keys(text: &str) -> Result<Vec<PublicKey>, (String, String)> {
    let wrong = |why: String| (shown(text), why);
    let mut keys = Vec::new();
    for block in Pem::iter_from_buffer(text.as_bytes()) {
        let block = block.map_err(|error| {
            wrong(format!("its PEM cannot be read ({error}): give the file cosign.pub with all its lines"))
        })?;
        if block.label != "PUBLIC KEY" {
            // Nothing of it is shown: it may be the private one.
            let why = format!(
                "it holds a {:?} where a \"PUBLIC KEY\" must be: give cosign.pub, and keep cosign.key to yourself",
                block.label
            );
            return Err((String::new(), why));
        }
        keys.push(public_key(&block.contents).map_err(wrong)?);
    }
    // What is meant to be a key and is none must not be passed over.
    if text.matches("-----BEGIN").count() != keys.len() {
        return Err(wrong("a line that begins a key does not read -----BEGIN PUBLIC KEY-----".to_owned()));
    }
    match keys.len() {
        0 => Err(wrong(
            "it holds no public key in PEM: give the file cosign.pub, or remove the annotation to want no signatures"
                .to_owned(),
        )),
        1..=KEYS => Ok(keys),
        count => Err(wrong(format!("it holds {count} keys; at most {KEYS} are tried"))),
    }
}

/// The first line, cut short.
fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let is_whole = line.len() == text.trim_end().len() && line.chars().count() <= SHOWN;
    let start: String = line.chars().take(SHOWN).collect();
    if is_whole { start } else { start + "…" }
}

fn public_key(der: &[u8]) -> Result<PublicKey, String> {
    let (rest, info) = SubjectPublicKeyInfo::from_der(der)
        .map_err(|_| "one of its keys is not in the form of X.509 (SubjectPublicKeyInfo)".to_owned())?;
    if !rest.is_empty() {
        return Err("one of its keys is followed by other bytes in the same block".to_owned());
    }
    let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let bytes = info.subject_public_key.data.to_vec();
    let (kind, is_right) = match &info.algorithm.algorithm {
        kind if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256) => (KeyKind::EcdsaP256, is_point(&bytes, 32)),
        kind if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_NIST_EC_P384) => (KeyKind::EcdsaP384, is_point(&bytes, 48)),
        kind if *kind == OID_SIG_ED25519 => (KeyKind::Ed25519, bytes.len() == 32),
        kind if *kind == OID_PKCS1_RSAENCRYPTION => (KeyKind::Rsa, info.parsed().is_ok_and(|key| RSA_BITS.contains(&key.key_size()))),
        _ => return Err("one of its keys is of a kind that is not verified: take ECDSA on P-256 (cosign's own choice) or P-384, Ed25519 or RSA".to_owned()),
    };
    match (kind, is_right) {
        (kind, true) => Ok(PublicKey { kind, bytes }),
        (KeyKind::Rsa, false) => {
            Err(format!("one of its RSA keys has not from {} to {} bits", RSA_BITS.start(), RSA_BITS.end()))
        }
        (_, false) => Err("one of its keys has another length or form than its kind says".to_owned()),
    }
}

/// Whether the bytes are an uncompressed point with coordinates of so many bytes.
fn is_point(bytes: &[u8], coordinate: usize) -> bool {
    bytes.first() == Some(&4) && bytes.len() == 1 + 2 * coordinate
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const P256: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAESv3ANQ/rKtEiSr/ynypfB9zP5iJD
tLUInx6M1OCmPKETrtVanOXh3gGJPT6mABepbys1tJAdoKp3WYVCpsO6XQ==
-----END PUBLIC KEY-----
";
    pub(in super::super) const P384: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEohPykpcPJ3p/2SAUHky+83xxXD1hcsj7
KxERLy2yj0sKOzgPOEHXNfGYaKNiXB5ExudBpUIhRMlyoWG/xAWNochmxcQOWAX+
zyspRf4uSFew2LkIOUWLmc7WUqKI/+gX
-----END PUBLIC KEY-----
";
    const ED25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAXlsOmwUQAMe4ccZRLNaJ0y3ETIcIed0WsjEmwwr6mYs=
-----END PUBLIC KEY-----
";
    const RSA: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAup8WbbLPQtRW/t5oxoqX
un9Hvj7nkXo8UWmflNRvgCmY0gbxBZ+tsAf6WqGAg4ZtkBARnGHYdtAbJlhjk0ul
bkrJ60nRtwr5cqqIjPVQ5zXHxJ/BDL07lLinoX/G9zMC9sUOKcYVw+OeC055LjO5
zOApOlkjMKpXq1poP4mFF0m/QwBr3D0HSayCEyGX1Ky9HdRuuKoWg5BZ4Bt1rwI6
WTPEYgdhuh8lAMz09aMgN59/J9TQIAthYA5uTKlOXP7s0HFfiVs4FO409FyoIelT
J/tjqkg3bfQKBqPYOd6K7+op4LZdVkw8pRTcamnEuiPCxKNSc47EMXPCGfSvvfEJ
5QIDAQAB
-----END PUBLIC KEY-----
";
    const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkD6Qv4V4zpW9rC8LcYs6w17vh
SADPooo5Ic5Lpl1XXwgUUp03aZbeZ6sWq/vozpL2X3MpGvhvU3APHwocwpZJDNFr
yKpyP5s2QYWi7kIGctdQDeUyLzPkvXtayyxLOYbvbG4NErXInHCIO4S4gcQnppEd
V1KXfFpiw/l11Iu4xwIDAQAB
-----END PUBLIC KEY-----
";
    const P521: &str = "-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBZW87AKYiLH7DLvKy7wyVIZqEjbDM
VtLYnq6kE/7LsJKH/COm485XlP3spwgOaXQ0zHaKyUKCq9ps9kvuyU8gkcUBB/Yd
k/JlcqcYnryncjrEkbbbeW7nOh1uGtShMTP8abdDHlgG9VcTEKzoVQf+TBae7Qci
MjSlkcX5wOp0iOxzTjg=
-----END PUBLIC KEY-----
";

    #[test]
    fn keys_of_every_kind_are_read() {
        let all = [P256, P384, ED25519, RSA].concat().replace('\n', "\r\n");
        let keys = public_keys(&all).expect("keys");
        let read: Vec<(KeyKind, usize)> = keys.iter().map(|key| (key.kind, key.bytes.len())).collect();
        let wanted = [(KeyKind::EcdsaP256, 65), (KeyKind::EcdsaP384, 97), (KeyKind::Ed25519, 32), (KeyKind::Rsa, 270)];
        assert_eq!(read, wanted);
    }

    #[test]
    fn what_is_no_key_is_refused_and_a_private_one_not_shown() {
        let why = |text: &str| public_keys(text).expect_err("refused");
        assert!(why("cosign.pub").1.contains("no public key"), "{:?}", why("cosign.pub"));
        assert_eq!(why("cosign.pub").0, "cosign.pub");
        let private = P256.replace("PUBLIC KEY", "ENCRYPTED SIGSTORE PRIVATE KEY");
        assert!(why(&private).1.contains("cosign.key") && why(&private).0.is_empty(), "{:?}", why(&private));
        assert!(why(RSA_1024).1.contains("2048"), "{:?}", why(RSA_1024));
        assert!(why(P521).1.contains("P-256"), "{:?}", why(P521));
        assert!(why(&P256.repeat(KEYS + 1)).1.contains("at most 16"));
        assert_eq!(why(&P256.repeat(KEYS + 1)).0, "-----BEGIN PUBLIC KEY-----…");
    }

    #[test]
    fn a_key_that_is_cut_off_is_never_passed_over() {
        for end in P256.find(' ').unwrap_or_default()..P256.find("-----END").unwrap_or_default() {
            let cut = &P256[..end];
            assert!(public_keys(cut).is_err() && public_keys(&format!("{P384}{cut}")).is_err(), "{cut}");
        }
        assert!(public_keys(&format!("{P256}{}", P384.replace('\n', " "))).is_err());
        assert!(public_keys(&P256.replacen("MFkw", "MFkx", 1)).is_err());
    }
}
