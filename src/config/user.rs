//! Who is at the terminal: for the journal, where nobody says otherwise. A name to read, and no proof of anything.

use std::ffi::CStr;

/// What login programs call the user; `LOGNAME` is what POSIX asks for.
const VARIABLES: [&str; 2] = ["USER", "LOGNAME"];
const RECORD_BYTES_MAX: usize = 16 * 1024;

/// The name of whoever runs this process, if it has one.
pub fn user() -> Option<String> {
    let said = VARIABLES.iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.trim().is_empty()));
    said.or_else(of_the_system)
}

/// As the system's list of users has it.
fn of_the_system() -> Option<String> {
    // SAFETY: zeroes are a valid `passwd`: pointers that are null and numbers that are zero.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut text = vec![0; RECORD_BYTES_MAX];
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers are to memory of ours that outlives the call, `text` with its length.
    let failed = unsafe { libc::getpwuid_r(libc::geteuid(), &mut entry, text.as_mut_ptr(), text.len(), &mut found) };
    if failed != 0 || found.is_null() || entry.pw_name.is_null() {
        return None;
    }
    // SAFETY: the entry was found, so its name is a text that ends with a zero byte, within `text`.
    let name = unsafe { CStr::from_ptr(entry.pw_name) }.to_str().ok()?;
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_runs_the_tests_has_a_name_or_none_but_no_empty_one() {
        assert_ne!(user(), Some(String::new()));
        assert_ne!(of_the_system(), Some(String::new()));
    }
}
