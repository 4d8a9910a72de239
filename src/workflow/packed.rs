//! How parts of a subject's state are written that have a form of their own: other cores' bytes, JSON, digests.
//!
//! Within bytes they are bytes, within JSON (a fact's or a command's) text.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Deserializer, Serializer, de};

use crate::consent::Consent;
use crate::permit::{Ledger, Suppressions};

pub(super) trait Packed: Sized + Default + PartialEq {
    fn pack(&self, out: &mut Vec<u8>);
    fn unpack(bytes: &[u8]) -> Result<Self, String>;
}

macro_rules! packed {
    ($($name:ident),+) => {$(
        impl Packed for $name {
            fn pack(&self, out: &mut Vec<u8>) {
                self.encode(out);
            }

            fn unpack(bytes: &[u8]) -> Result<Self, String> {
                $name::decode(bytes).map_err(|error| error.to_string())
            }
        }
    )+};
}

packed!(Consent, Suppressions, Ledger);

/// What has nothing in it is written as no bytes at all.
pub(super) fn serialize<T: Packed, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    if serializer.is_human_readable() {
        value.pack(&mut bytes);
        return serializer.serialize_str(&BASE64.encode(bytes));
    }
    if *value != T::default() {
        value.pack(&mut bytes);
    }
    serializer.serialize_bytes(&bytes)
}

pub(super) fn deserialize<'de, T: Packed, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    if deserializer.is_human_readable() {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        let bytes = BASE64.decode(text.as_bytes()).map_err(de::Error::custom)?;
        return T::unpack(&bytes).map_err(de::Error::custom);
    }
    let bytes = <&[u8]>::deserialize(deserializer)?;
    if bytes.is_empty() { Ok(T::default()) } else { T::unpack(bytes).map_err(de::Error::custom) }
}

/// Values of any shape, which only a form that names things can hold: as JSON text.
pub(super) mod json {
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

    pub fn serialize<T: Serialize, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(value).map_err(ser::Error::custom)?;
        serializer.serialize_str(&text)
    }

    pub fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        serde_json::from_str(<&str>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// The text of a digest as its bytes; of anything else, as a test may name a definition, as it is.
pub(super) mod digest {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::domain::Digest;

    #[derive(Serialize, Deserialize)]
    enum Name<'t> {
        Digest([u8; 32]),
        Text(&'t str),
    }

    pub fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        // Only what comes back as the same text: hexadecimal in capitals would not.
        match Digest::from_hex(text).filter(|digest| digest.to_hex() == text) {
            Some(digest) => Name::Digest(digest.0).serialize(serializer),
            None => Name::Text(text).serialize(serializer),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        Ok(match Name::deserialize(deserializer)? {
            Name::Digest(bytes) => Digest(bytes).to_hex(),
            Name::Text(text) => text.to_owned(),
        })
    }
}
