//! Sealing what leaves memory: AES-256-GCM under a key of the ring, named by its id, so that keys can be changed.
//!
//! Every file and every stream has a salt of its own, from which its key is derived (HKDF-SHA256); within it each piece has a
//! number, which is its nonce. Nothing is ever sealed twice under one salt and number: whoever starts again takes a new salt.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{hkdf, pbkdf2};
use serde::{Deserialize, Serialize};

/// The length of [`Sealer::head`], in bytes.
pub const HEAD: usize = 20;

/// How many bytes sealing adds to a piece.
pub const TAG: usize = 16;

/// How many former keys are kept, to read what was sealed with them, such as older backups.
const FORMER_KEYS: usize = 16;

/// How often a passphrase is hashed (PBKDF2-HMAC-SHA256), as OWASP advises.
const PASSPHRASE_ROUNDS: u32 = 600_000;

/// The version of the ring's text that is written now.
const VERSION: u32 = 1;

/// Something sealed cannot be opened, or a ring cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key is not in the ring.
    #[error("it is sealed with key {0}, which is not in this ring of encryption keys")]
    UnknownKey(u32),
    /// It was changed after it was sealed, or sealed with another key.
    #[error("it was changed after it was sealed, or sealed with another key")]
    Damaged,
    /// The ring's text is none.
    #[error("this is no ring of encryption keys: {0}")]
    BadRing(String),
    /// The system has no randomness.
    #[error("the system gives no randomness")]
    NoRandomness,
}

/// The keys: the last one seals, all of them open. Clones are the same ring.
#[derive(Clone)]
pub struct Keyring {
    keys: Arc<RwLock<Keys>>,
}

#[derive(Clone)]
struct Keys {
    active: u32,
    secrets: BTreeMap<u32, [u8; 32]>,
}

/// The text form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RingText {
    version: u32,
    active: u32,
    /// Secrets as 64 hexadecimal digits, by id.
    keys: BTreeMap<u32, String>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Keyring({:?}, key {} seals)", self.ids(), self.active())
    }
}

impl Keyring {
    /// A ring with one new key.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`].
    pub fn generate() -> Result<Self, SealError> {
        Ok(Self::of(Keys { active: 1, secrets: [(1, random()?)].into() }))
    }

    fn of(keys: Keys) -> Self {
        Self { keys: Arc::new(RwLock::new(keys)) }
    }

    /// The ring in `text`.
    ///
    /// # Errors
    /// [`SealError::BadRing`].
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let bad = |error: &dyn std::fmt::Display| SealError::BadRing(error.to_string());
        let ring: RingText = serde_json::from_str(text).map_err(|error| bad(&error))?;
        if ring.version != VERSION {
            return Err(bad(&format_args!("it has version {}, and this program reads {VERSION}", ring.version)));
        }
        let mut secrets = BTreeMap::new();
        for (id, secret) in ring.keys {
            let mut bytes = [0; 32];
            hex::decode_to_slice(&secret, &mut bytes)
                .map_err(|_| bad(&format_args!("key {id} is no 64 hex digits")))?;
            secrets.insert(id, bytes);
        }
        if !secrets.contains_key(&ring.active) {
            return Err(bad(&format_args!("its active key {} is missing", ring.active)));
        }
        Ok(Self::of(Keys { active: ring.active, secrets }))
    }

    /// The ring as text, secrets included.
    pub fn render(&self) -> String {
        let keys = self.read();
        let text = RingText {
            version: VERSION,
            active: keys.active,
            keys: keys.secrets.iter().map(|(id, secret)| (*id, hex::encode(secret))).collect(),
        };
        serde_json::to_string_pretty(&text).expect("a ring is always JSON")
    }

    /// The same keys and a new one, which seals from now on; the oldest go above what is kept.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`].
    pub fn rotated(&self) -> Result<Self, SealError> {
        let mut keys = self.read().clone();
        keys.active = keys.secrets.keys().last().copied().unwrap_or_default() + 1;
        keys.secrets.insert(keys.active, random()?);
        while keys.secrets.len() > FORMER_KEYS + 1 {
            keys.secrets.pop_first();
        }
        Ok(Self::of(keys))
    }

    /// Takes over the keys of `other`, for all clones of this ring. What this ring had and `other` has not is kept to open with.
    pub fn adopt(&self, other: &Self) {
        let new = other.read().clone();
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.active = new.active;
        keys.secrets.extend(new.secrets);
    }

    /// Whether `other` has no key that this ring lacks, and both seal with the same one.
    pub fn covers(&self, other: &Self) -> bool {
        let (own, other) = (self.read().clone(), other.read().clone());
        own.active == other.active && other.secrets.iter().all(|(id, secret)| own.secrets.get(id) == Some(secret))
    }

    /// The id of the key that seals.
    pub fn active(&self) -> u32 {
        self.read().active
    }

    /// The ids of all keys.
    pub fn ids(&self) -> Vec<u32> {
        self.read().secrets.keys().copied().collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a new file or stream of the kind `purpose`: the active key and a new salt.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`].
    pub fn sealer(&self, purpose: &'static str) -> Result<Sealer, SealError> {
        let salt = random()?;
        let keys = self.read();
        let secret = keys.secrets.get(&keys.active).ok_or(SealError::UnknownKey(keys.active))?;
        Ok(Sealer::new(secret, keys.active, salt, purpose))
    }

    /// For a file or stream that begins with `head`.
    ///
    /// # Errors
    /// [`SealError::UnknownKey`].
    pub fn opener(&self, purpose: &'static str, head: &[u8; HEAD]) -> Result<Sealer, SealError> {
        let (id, salt) = split(head);
        let keys = self.read();
        let secret = keys.secrets.get(&id).ok_or(SealError::UnknownKey(id))?;
        Ok(Sealer::new(secret, id, salt, purpose))
    }

    /// `plain` sealed as one piece, with its head.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`].
    pub fn seal(&self, purpose: &'static str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let sealer = self.sealer(purpose)?;
        let mut sealed = [sealer.head().as_slice(), plain].concat();
        sealer.seal(0, &[], &mut sealed, HEAD);
        Ok(sealed)
    }

    /// What [`Keyring::seal`] sealed.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open(&self, purpose: &'static str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (head, rest) = sealed.split_first_chunk().ok_or(SealError::Damaged)?;
        let mut rest = rest.to_vec();
        let length = self.opener(purpose, head)?.open(0, &[], &mut rest)?.len();
        rest.truncate(length);
        Ok(rest)
    }
}

/// A ring of one key that a passphrase gives together with `salt`. Takes a fraction of a second, on purpose.
pub fn passphrase_ring(passphrase: &str, salt: &[u8; 16]) -> Keyring {
    let mut secret = [0; 32];
    let rounds = PASSPHRASE_ROUNDS.try_into().expect("not zero");
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, passphrase.as_bytes(), &mut secret);
    Keyring::of(Keys { active: 0, secrets: [(0, secret)].into() })
}

/// Random bytes.
///
/// # Errors
/// [`SealError::NoRandomness`].
pub fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SealError::NoRandomness)?;
    Ok(bytes)
}

fn split(head: &[u8; HEAD]) -> (u32, [u8; 16]) {
    let (id, salt) = head.split_first_chunk().expect("twenty bytes");
    (u32::from_le_bytes(*id), salt.try_into().expect("sixteen bytes"))
}

/// Seals and opens the pieces of one file or stream.
pub struct Sealer {
    key: LessSafeKey,
    id: u32,
    salt: [u8; 16],
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Sealer(key {})", self.id)
    }
}

impl Sealer {
    fn new(secret: &[u8; 32], id: u32, salt: [u8; 16], purpose: &'static str) -> Self {
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(secret);
        let info = [purpose.as_bytes()];
        let derived = derived.expand(&info, &AES_256_GCM).expect("one key is not too much to ask for");
        Self { key: LessSafeKey::new(UnboundKey::from(derived)), id, salt }
    }

    /// What the file or stream must begin with: the key's id and the salt.
    pub fn head(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&self.id.to_le_bytes());
        head[4..].copy_from_slice(&self.salt);
        head
    }

    /// The id of its key.
    pub fn key_id(&self) -> u32 {
        self.id
    }

    /// Seals `bytes[from..]` in place as piece `number`, and appends the tag. `about` must be given again to open it.
    pub fn seal(&self, number: u64, about: &[u8], bytes: &mut Vec<u8>, from: usize) {
        let tag = self.key.seal_in_place_separate_tag(nonce(number), Aad::from(about), &mut bytes[from..]);
        bytes.extend_from_slice(tag.expect("a piece is far below the largest that can be sealed").as_ref());
    }

    /// Opens piece `number` in place; answers what was sealed.
    ///
    /// # Errors
    /// [`SealError::Damaged`].
    pub fn open<'a>(&self, number: u64, about: &[u8], bytes: &'a mut [u8]) -> Result<&'a mut [u8], SealError> {
        self.key.open_in_place(nonce(number), Aad::from(about), bytes).map_err(|_| SealError::Damaged)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_after_the_keys_were_changed_and_not_with_others() {
        let ring = Keyring::generate().expect("a ring");
        let sealed = ring.seal("test", b"a secret").expect("sealed");
        assert!(!sealed.windows(8).any(|window| window == b"a secret"));
        ring.adopt(&ring.rotated().expect("rotated"));
        assert_eq!((ring.active(), ring.ids()), (2, vec![1, 2]));
        assert_eq!(ring.open("test", &sealed).expect("opened"), b"a secret");
        assert_eq!(ring.open("another", &sealed), Err(SealError::Damaged));
        let other = Keyring::generate().expect("a ring");
        assert_eq!(other.open("test", &sealed), Err(SealError::Damaged));
        let newer = ring.seal("test", b"a secret").expect("sealed");
        assert_eq!(other.open("test", &newer), Err(SealError::UnknownKey(2)));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(ring.open("test", &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_ring_comes_back_from_its_text_and_other_texts_are_refused() {
        let ring = Keyring::generate().expect("a ring").rotated().expect("rotated");
        let again = Keyring::parse(&ring.render()).expect("parsed");
        assert!(again.covers(&ring) && ring.covers(&again));
        assert!(!format!("{ring:?}").contains(&hex::encode(ring.read().secrets[&1])));
        for text in ["", "{}", r#"{"version":2,"active":1,"keys":{}}"#, r#"{"version":1,"active":1,"keys":{"1":"ab"}}"#]
        {
            assert!(matches!(Keyring::parse(text), Err(SealError::BadRing(_))), "{text}");
        }
    }

    #[test]
    fn old_keys_go_when_there_are_too_many() {
        let mut ring = Keyring::generate().expect("a ring");
        for _ in 0..30 {
            ring = ring.rotated().expect("rotated");
        }
        assert_eq!((ring.ids().len(), ring.active()), (FORMER_KEYS + 1, 31));
    }

    #[test]
    fn a_passphrase_gives_the_same_key_again() {
        let sealed = passphrase_ring("correct horse", &[7; 16]).seal("test", b"x").expect("sealed");
        assert_eq!(passphrase_ring("correct horse", &[7; 16]).open("test", &sealed).expect("opened"), b"x");
        assert!(passphrase_ring("battery staple", &[7; 16]).open("test", &sealed).is_err());
    }
}
