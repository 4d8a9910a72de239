//! HMAC-SHA256, compared in constant time.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The code over all parts, one after another.
pub(super) fn sign(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    over(key, parts).finalize().into_bytes().into()
}

/// Takes as long for a wrong code as for a right one.
pub(super) fn is_signed(key: &[u8], parts: &[&[u8]], code: &[u8]) -> bool {
    over(key, parts).verify_slice(code).is_ok()
}

fn over(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn the_code_is_that_of_the_standard() {
        let code = sign(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        let hex: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert!(is_signed(b"Jefe", &[b"what do ya want for nothing?"], &code));
        assert!(!is_signed(b"Jefe", &[b"what do ya want for nothing"], &code));
        assert!(!is_signed(b"Jefe", &[b"what do ya want for nothing?"], &code[..31]));
    }
}
