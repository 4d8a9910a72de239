//! What links in messages and to approvals begin with and are signed with: as configured, else made once and kept in the folder.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use super::{Error, Folder};
use crate::channels::bots::Rules;
use crate::channels::link::Keys;
use crate::config::Config;
use crate::gateway::Links;

/// The id of the key that is kept in the folder.
const OWN_KEY: &str = "own";

/// `served` is the address that the server listens on, as a URL: what links begin with if nothing says better. Mail that goes out to people
/// needs better: an address of https that the configuration names.
pub fn links(config: &Config, folder: &Folder, served: &str) -> Result<Links, Error> {
    let configured = configured(config);
    let base = configured.map_or_else(|| from_here(served), str::to_owned).trim_end_matches('/').to_owned();
    if config.channels.email.smtp.is_some() && !configured.is_some_and(|url| url.starts_with("https://")) {
        let why = configured.map_or_else(|| "links.base_url is empty".to_owned(), |url| format!("they would begin with {url}"));
        return Err(Error::NoBaseUrl(why));
    }
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
    Ok(Links { base, keys: keys?, bots: bots(&config.channels.bots.0)? })
}

/// The rules by which machines are told from people; the shipped ones if no file is named.
fn bots(file: &Path) -> Result<Arc<Rules>, Error> {
    if file.as_os_str().is_empty() {
        return Ok(Arc::new(Rules::shipped().clone()));
    }
    let why = |error: String| Error::Bots { file: file.to_owned(), why: error };
    let text = std::fs::read_to_string(file).map_err(|error| why(error.to_string()))?;
    Rules::parse(&text).map(Arc::new).map_err(|error| why(error.to_string()))
}

/// What links begin with if the configuration says so.
pub fn configured(config: &Config) -> Option<&str> {
    [&config.links.base_url, &config.gateway.public_url].into_iter().map(String::as_str).find(|url| !url.is_empty())
}

/// An address that leads to the server from the machine itself: one may listen on every address and on any free port, and link to neither.
fn from_here(served: &str) -> String {
    let address = served.strip_prefix("http://").and_then(|address| address.parse::<SocketAddr>().ok());
    let Some(address) = address else { return served.to_owned() };
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let usual = || Config::default().server.listen.parse().map_or(0, |usual: SocketAddr| usual.port());
    let port = if address.port() == 0 { usual() } else { address.port() };
    format!("http://{}", SocketAddr::new(ip, port))
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
            sent: None,
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

    #[test]
    fn links_lead_to_no_address_that_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let base = |served: &str| links(&Config::default(), &Folder::new(dir.path()), served).unwrap().base;
        assert_eq!(base("http://0.0.0.0:8090"), "http://127.0.0.1:8090");
        assert_eq!(base("http://[::]:8090"), "http://[::1]:8090");
        assert_eq!(base("http://127.0.0.1:0"), "http://127.0.0.1:8080");
        assert_eq!(base("http://10.0.0.7:8090"), "http://10.0.0.7:8090");
    }

    #[test]
    fn mail_to_people_needs_an_address_of_https() {
        let dir = tempfile::tempdir().unwrap();
        let mut config: Config = toml::from_str("[channels.email.smtp]\nhost = \"mx.example.com\"\nport = 587\n").unwrap();
        let base = |config: &Config| links(config, &Folder::new(dir.path()), "http://0.0.0.0:8080").map(|links| links.base);
        for wrong in ["", "http://go.example.com"] {
            config.links.base_url = wrong.to_owned();
            let refused = base(&config).unwrap_err().to_string();
            assert!(refused.contains("Set links.base_url to the https address"), "{refused}");
        }
        config.links.base_url = "https://go.example.com".to_owned();
        assert_eq!(base(&config).unwrap(), "https://go.example.com");
    }
}
