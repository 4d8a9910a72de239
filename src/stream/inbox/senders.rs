//! Whose a foreign record is: by a write key in its headers, by a tenant and source in its headers, or by what the namespace's settings say.
//!
//! Kafka says who may write to the topic; among those the headers are believed. What names nobody whom this installation knows is refused,
//! so that a typing mistake does not open a tenant.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use super::options::{Format, Options};
use crate::domain::{DeadReason, SourceId, TenantId};
use crate::log::Headers;
use crate::stream::fold::Fault;

/// A source's write key, as SDKs have it.
pub const WRITE_KEY_HEADER: &str = "flywheel-write-key";
pub const TENANT_HEADER: &str = "flywheel-tenant";
pub const SOURCE_HEADER: &str = "flywheel-source";

/// A configured source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    pub tenant: TenantId,
    pub source: SourceId,
    pub disabled: bool,
}

/// Everyone who may send to the inbox of one namespace.
#[derive(Debug, Clone, Default)]
pub struct Senders {
    /// Tenants that records may name.
    pub tenants: BTreeSet<TenantId>,
    pub write_keys: HashMap<String, Sender>,
    /// Of records that name no tenant.
    pub tenant: Option<TenantId>,
    /// Of records that name no source.
    pub source: Option<SourceId>,
    pub format: Format,
}

impl Senders {
    /// What the settings say of those who say nothing; an error names the setting.
    pub fn with_options(mut self, options: &Options) -> Result<Self, String> {
        if !options.tenant.is_empty() {
            let tenant = TenantId::new(&options.tenant).map_err(|error| format!("inbox.tenant: {error}"))?;
            self.tenants.insert(tenant.clone());
            self.tenant = Some(tenant);
        }
        self.source = Some(SourceId::new(&options.source).map_err(|error| format!("inbox.source: {error}"))?);
        self.format = options.format;
        Ok(self)
    }

    /// Whose a record with these headers is.
    pub(super) fn of(&self, headers: Headers<'_>) -> Result<Sender, Fault> {
        let (write_key, tenant, source) = (text(headers, WRITE_KEY_HEADER)?, text(headers, TENANT_HEADER)?, text(headers, SOURCE_HEADER)?);
        let named = tenant.map(|name| self.known(name)).transpose()?;
        let source = source.map(source_named).transpose()?;
        if let Some(key) = write_key {
            let Some(sender) = self.write_keys.get(key) else {
                return Err(unknown(format!("{WRITE_KEY_HEADER} is no write key of this namespace; `sources` lists them")));
            };
            if named.is_some_and(|named| named != sender.tenant) {
                return Err(unknown(format!("{TENANT_HEADER} names another tenant than the one of {WRITE_KEY_HEADER}; send one of them")));
            }
            return Ok(sender.clone());
        }
        let Some(tenant) = named.or_else(|| self.tenant.clone()) else {
            return Err(unknown(format!(
                "neither {WRITE_KEY_HEADER} nor {TENANT_HEADER} is among its headers, and inbox.tenant is not set"
            )));
        };
        let source = source.or_else(|| self.source.clone());
        let source = source.ok_or_else(|| Fault::new(DeadReason::Malformed, format!("{SOURCE_HEADER} is not among its headers")))?;
        let is_this = |sender: &&Sender| sender.tenant == tenant && sender.source == source;
        let disabled = self.write_keys.values().find(is_this).is_some_and(|sender| sender.disabled);
        Ok(Sender { tenant, source, disabled })
    }

    fn known(&self, name: &str) -> Result<TenantId, Fault> {
        let tenant = TenantId::new(name).ok().filter(|tenant| self.tenants.contains(tenant));
        tenant.ok_or_else(|| {
            let mut detail = format!("{TENANT_HEADER} names ");
            // Of a name that is not one only its beginning: it may be anything.
            let _ = write!(detail, "{:?}, a tenant that no source, API key or inbox.tenant has", name.chars().take(64).collect::<String>());
            unknown(detail)
        })
    }
}

fn unknown(detail: String) -> Fault {
    Fault::new(DeadReason::UnknownTenant, detail)
}

fn source_named(name: &str) -> Result<SourceId, Fault> {
    SourceId::new(name).map_err(|error| Fault::new(DeadReason::Malformed, format!("{SOURCE_HEADER}: {error}")))
}

fn text<'a>(headers: Headers<'a>, name: &str) -> Result<Option<&'a str>, Fault> {
    let Some(value) = headers.last(name).flatten() else { return Ok(None) };
    let text = std::str::from_utf8(value).map_err(|_| Fault::new(DeadReason::Malformed, format!("{name} is no UTF-8")))?;
    Ok(Some(text.trim()).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::HeaderList;

    fn senders() -> Senders {
        let sender = |source: &str, disabled| Sender { tenant: tenant("acme"), source: SourceId::new(source).unwrap(), disabled };
        Senders {
            tenants: [tenant("acme"), tenant("globex")].into(),
            write_keys: [("k1".to_owned(), sender("web", false)), ("k2".to_owned(), sender("old", true))].into(),
            ..Senders::default()
        }
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    /// `tenant/source`, with `!` before a disabled one, or the reason.
    #[track_caller]
    fn check(options: &Options, headers: &[(&str, &str)], expect: &str) {
        let mut list = HeaderList::default();
        for (name, value) in headers {
            list.push(name, Some(value.as_bytes())).unwrap();
        }
        let senders = senders().with_options(options).unwrap();
        let found = match senders.of(list.as_headers()) {
            Ok(sender) => format!("{}{}/{}", if sender.disabled { "!" } else { "" }, sender.tenant, sender.source),
            Err(fault) => fault.reason.to_string(),
        };
        assert_eq!(found, expect, "{headers:?}");
    }

    #[test]
    fn a_write_key_says_tenant_and_source() {
        let options = Options { tenant: "globex".into(), ..Options::default() };
        check(&options, &[(WRITE_KEY_HEADER, "k1")], "acme/web");
        check(&options, &[(WRITE_KEY_HEADER, "k2")], "!acme/old");
        check(&options, &[(WRITE_KEY_HEADER, "k1"), (TENANT_HEADER, "acme")], "acme/web");
        check(&options, &[(WRITE_KEY_HEADER, "k1"), (TENANT_HEADER, "globex")], "unknown_tenant");
        check(&options, &[(WRITE_KEY_HEADER, "nobody's")], "unknown_tenant");
    }

    #[test]
    fn headers_name_a_tenant_that_is_known_and_any_source() {
        let options = Options::default();
        check(&options, &[(TENANT_HEADER, "globex"), (SOURCE_HEADER, "crm")], "globex/crm");
        check(&options, &[(TENANT_HEADER, " acme ")], "acme/inbox");
        check(&options, &[(TENANT_HEADER, "acme"), (SOURCE_HEADER, "old")], "!acme/old");
        check(&options, &[(TENANT_HEADER, "initech")], "unknown_tenant");
        check(&options, &[(TENANT_HEADER, "acme"), (SOURCE_HEADER, "No Slug")], "malformed");
        check(&options, &[], "unknown_tenant");
    }

    #[test]
    fn who_says_nothing_is_whom_the_settings_say() {
        let options = Options { tenant: "initech".into(), source: "warehouse".into(), ..Options::default() };
        check(&options, &[], "initech/warehouse");
        check(&options, &[(TENANT_HEADER, "")], "initech/warehouse");
        check(&options, &[(TENANT_HEADER, "initech"), (SOURCE_HEADER, "crm")], "initech/crm");
        let wrong = senders().with_options(&Options { tenant: "No Slug".into(), ..Options::default() }).unwrap_err();
        assert!(wrong.starts_with("inbox.tenant: "), "{wrong}");
    }
}
