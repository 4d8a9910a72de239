//! What links in messages and to approvals begin with and are signed with: as configured, else made once and kept in the folder.

use super::{Error, Folder};
use crate::channels::link::Keys;
use crate::config::Config;
use crate::gateway::Links;

/// The id of the key that is kept in the folder.
const OWN_KEY: &str = "own";

/// `served` is the address that the server listens on, as a URL: what links begin with if nothing says better.
pub fn links(config: &Config, folder: &Folder, served: &str) -> Result<Links, Error> {
    let configured = [&config.links.base_url, &config.gateway.public_url].into_iter().find(|url| !url.is_empty());
    let base = configured.map_or(served, String::as_str).trim_end_matches('/').to_owned();
    let keys = match config.links.keys.first() {
        Some(first) => {
            let keys = config.links.keys.iter().map(|key| (key.id.clone(), key.key.clone().into_bytes()));
            Keys::new(&first.id, keys)
        }
        None => {
            let key = folder.link_key().map_err(|error| Error::folder(folder, &error))?;
            Keys::new(OWN_KEY, [(OWN_KEY.to_owned(), key.into_bytes())])
        }
    };
    Ok(Links { base, keys: keys? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::link::{Kind, Link};
    use crate::config::LinkKey;
    use crate::domain::Millis;
    use crate::permit::EffectKey;

    #[test]
    fn the_folders_own_key_is_made_once_and_a_configured_one_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        let mut config = Config::default();
        let link = Link {
            kind: Kind::Open,
            namespace: "main".to_owned(),
            tenant: "acme".to_owned(),
            subject: "u:ann".to_owned(),
            effect: EffectKey([1; 16]),
            expires: Millis(10_000),
            detail: String::new(),
        };
        let first = self::links(&config, &folder, "http://127.0.0.1:8080").unwrap();
        assert_eq!(first.base, "http://127.0.0.1:8080");
        let token = first.keys.sign(&link);
        let again = self::links(&config, &folder, "http://127.0.0.1:8080").unwrap();
        assert_eq!(again.keys.open(Kind::Open, &token, Millis(0)).as_ref(), Ok(&link));
        config.links.base_url = "https://go.example.com/".to_owned();
        config.links.keys = vec![LinkKey { id: "a".to_owned(), key: "k".repeat(32) }];
        let configured = self::links(&config, &folder, "http://127.0.0.1:8080").unwrap();
        assert_eq!(configured.base, "https://go.example.com");
        assert!(configured.keys.open(Kind::Open, &token, Millis(0)).is_err());
        config.links.keys[0].key = "short".to_owned();
        assert!(matches!(self::links(&config, &folder, ""), Err(Error::LinkKey(_))));
    }
}
