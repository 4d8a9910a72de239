//! State of other cores within a subject's: their own bytes, as base64 text in JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Deserializer, Serializer, de};

use crate::consent::Consent;
use crate::permit::{Ledger, Suppressions};

pub(super) trait Packed: Sized {
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

pub(super) fn serialize<T: Packed, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    value.pack(&mut bytes);
    serializer.serialize_str(&BASE64.encode(bytes))
}

pub(super) fn deserialize<'de, T: Packed, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    let bytes = BASE64.decode(text.as_bytes()).map_err(de::Error::custom)?;
    T::unpack(&bytes).map_err(de::Error::custom)
}
