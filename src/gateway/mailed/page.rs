//! The pages' HTML: one layout, everything escaped, no scripts, nothing loaded from anywhere.

use std::fmt::Write;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use super::private;
use crate::gateway::reply::with_body;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// Nothing but its own style, and forms to where it came from.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'");
const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:42rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}\
h1{font-size:1.4rem}dt{font-weight:600;margin-top:.75rem}dd{margin:0}pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f3f3f3;\
padding:.75rem;font:inherit}button{font:inherit;padding:.5rem 1rem;margin:.5rem .5rem .5rem 0}label{display:block;margin:.5rem 0}\
textarea,input[type=text]{font:inherit;width:100%;box-sizing:border-box}fieldset{margin:1rem 0}iframe{width:100%;height:24rem;border:1px solid #999;background:#fff}\
@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}pre{background:#2a2a2a}}";

/// Text that stands in HTML, in an element or between double quotes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // They turn the direction of what follows: text that reads otherwise than it is.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => write!(out, "[U+{:04X}]", c as u32).expect("a string takes everything"),
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A whole page; `title` is text, `body` is HTML.
pub(super) fn page(status: StatusCode, title: &str, body: &str) -> Response<Body> {
    let title = escaped(title);
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    );
    let mut response = private(with_body(status, HTML, html));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

/// A page that says one thing.
pub(super) fn message(status: StatusCode, title: &str, text: &str) -> Response<Body> {
    page(status, title, &format!("<p role=\"status\">{}</p>", escaped(text)))
}

/// A value as a definition list: objects by name, everything else as it is.
pub(super) fn list_of(value: &Value) -> String {
    let Value::Object(fields) = value else { return format!("<pre>{}</pre>", escaped(&text_of(value))) };
    let mut html = String::from("<dl>");
    for (name, value) in fields {
        write!(html, "\n<dt>{}</dt>\n<dd><pre>{}</pre></dd>", escaped(name), escaped(&text_of(value))).expect("a string takes everything");
    }
    html.push_str("\n</dl>");
    html
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "(nothing)".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => serde_json::to_string_pretty(value).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_that_is_shown_can_become_part_of_the_page() {
        let hostile = "</pre><script>alert('x')</script>\" onload=\"a\u{202e}b\u{0}";
        let shown = list_of(&json!({hostile: hostile, "deep": {hostile: [hostile]}}));
        assert!(
            !shown.contains("<script") && shown.matches("</pre>").count() == 2 && !shown.contains('\u{202e}') && !shown.contains('\u{0}'),
            "{shown}"
        );
        assert_eq!(escaped("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
        assert_eq!(list_of(&json!("a<b")), "<pre>a&lt;b</pre>");
    }
}
