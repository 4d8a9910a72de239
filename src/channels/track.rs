//! Makes a message's HTML tell when it is opened and what is clicked: links go through the click redirect, a pixel stands at the end.
//!
//! Works on the text: only the address within `href="..."` of an anchor changes, so what the author wrote stays as it was. Unsubscribe and
//! preference links, fragments, mail addresses and very long links are left alone.

use super::link::{Keys, Kind, Link};

/// A longer address makes a token that some mail programs cut.
const TARGET_BYTES_MAX: usize = 1_500;

/// `of` is the link of this message: its namespace, tenant, subject, effect and end; kind and detail are set here.
pub fn tracked(html: &str, base: &str, keys: &Keys, of: &Link) -> String {
    let mut out = String::with_capacity(html.len() * 2);
    let mut rest = html;
    while let Some(at) = next_anchor(rest) {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let end = tag.find('>').map_or(tag.len(), |end| end + 1);
        push_anchor(&mut out, &tag[..end], base, keys, of);
        rest = &tag[end..];
    }
    let open = keys.url(base, &Link { kind: Kind::Open, detail: String::new(), ..of.clone() });
    let pixel = format!("<img src=\"{open}\" width=\"1\" height=\"1\" alt=\"\" style=\"display:block\">");
    let place = rest.to_ascii_lowercase().rfind("</body").unwrap_or(rest.len());
    out.push_str(&rest[..place]);
    out.push_str(&pixel);
    out.push_str(&rest[place..]);
    out
}

/// Where the next `<a ` begins.
fn next_anchor(html: &str) -> Option<usize> {
    let bytes = html.as_bytes();
    bytes.windows(3).position(|three| three[0] == b'<' && three[1].eq_ignore_ascii_case(&b'a') && three[2].is_ascii_whitespace())
}

fn push_anchor(out: &mut String, tag: &str, base: &str, keys: &Keys, of: &Link) {
    let Some((from, to)) = address(tag) else { return out.push_str(tag) };
    let target = unescape(&tag[from..to]);
    let is_web =
        ["http://", "https://"].iter().any(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let is_own = target.strip_prefix(base).is_some_and(|path| path.starts_with("/m/"));
    if !is_web || is_own || target.len() > TARGET_BYTES_MAX {
        return out.push_str(tag);
    }
    let url = keys.url(base, &Link { kind: Kind::Click, detail: target, ..of.clone() });
    out.push_str(&tag[..from]);
    out.push_str(&url);
    out.push_str(&tag[to..]);
}

/// Where the value of a quoted `href` begins and ends within the tag.
fn address(tag: &str) -> Option<(usize, usize)> {
    let lower = tag.to_ascii_lowercase();
    let name = lower.match_indices("href").map(|(at, _)| at).find(|at| tag.as_bytes()[at - 1].is_ascii_whitespace())?;
    let after = &tag[name + 4..];
    let value = after.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let from = tag.len() - value.len() + 1;
    let len = tag[from..].find(quote)?;
    Some((from, from + len))
}

/// The entities that template engines write into attributes.
fn unescape(text: &str) -> String {
    let entities = [("&#x2f;", "/"), ("&#x27;", "'"), ("&quot;", "\""), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];
    entities.iter().fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Millis;
    use crate::permit::EffectKey;

    const BASE: &str = "https://m.example";

    fn of() -> Link {
        let (namespace, tenant, subject) = ("main".to_owned(), "acme".to_owned(), "u:ada".to_owned());
        let (effect, expires) = (EffectKey([1; 16]), Millis(1_000_000));
        Link { kind: Kind::Open, namespace, tenant, subject, effect, expires, detail: String::new(), sent: None }
    }

    /// The HTML with each of our links replaced by what it says.
    fn shown(html: &str) -> String {
        let keys = Keys::new("k", [("k".to_owned(), vec![7; 32])]).unwrap();
        let mut html = tracked(html, BASE, &keys, &of());
        for kind in [Kind::Click, Kind::Open] {
            let start = format!("{BASE}{}", kind.path());
            while let Some(at) = html.find(&start) {
                let end = at + html[at..].find(['"', '\'']).unwrap();
                let link = keys.open(kind, &html[at + start.len()..end], Millis(0)).unwrap();
                html.replace_range(at..end, &format!("[{kind:?} {}]", link.detail));
            }
        }
        html.replace("<img src=\"[Open ]\" width=\"1\" height=\"1\" alt=\"\" style=\"display:block\">", "[pixel]")
    }

    #[test]
    fn links_of_anchors_go_through_the_redirect_and_nothing_else_changes() {
        let cases = [
            ("<a href=\"https://x.example/?a=1&amp;b=2\">Hi</a>", "<a href=\"[Click https://x.example/?a=1&b=2]\">Hi</a>[pixel]"),
            ("<A class='b' HREF = 'http://x' >ü</A>", "<A class='b' HREF = '[Click http://x]' >ü</A>[pixel]"),
            (
                "<html><body><a\nhref=\"https:&#x2f;&#x2f;x\"></a></BODY></html>",
                "<html><body><a\nhref=\"[Click https://x]\"></a>[pixel]</BODY></html>",
            ),
            (
                "<a href=\"mailto:a@b.example\"><a href=\"#top\"><a name=x><a data-href=\"https://x\">",
                "<a href=\"mailto:a@b.example\"><a href=\"#top\"><a name=x><a data-href=\"https://x\">[pixel]",
            ),
            ("<a href=\"https://m.example/m/unsubscribe/t\">", "<a href=\"https://m.example/m/unsubscribe/t\">[pixel]"),
            (
                "<abbr href=\"https://x\"><a href=https://x><a href=\"https://x",
                "<abbr href=\"https://x\"><a href=https://x><a href=\"https://x[pixel]",
            ),
            ("", "[pixel]"),
        ];
        for (html, expected) in cases {
            assert_eq!(shown(html), expected);
        }
    }
}
