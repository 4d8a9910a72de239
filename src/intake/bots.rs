//! Parts of user agents that mean a machine looked at the page: crawlers, previews, monitors, test browsers.
//!
//! The general words are those that nearly all crawlers carry; the names are of those without one. Chosen against the public collections
//! monperrus/crawler-user-agents and omrilotan/isbot, which name some thousands. HTTP libraries (curl, python-requests, ...) are left out on
//! purpose: a server-side SDK is one.

/// Compared without regard to case.
pub(super) const PARTS: &[&str] = &[
    // general words
    "bot",
    "crawl",
    "spider",
    "slurp",
    "scrap",
    "archiver",
    "headless",
    "phantomjs",
    "puppeteer",
    "playwright",
    "selenium",
    "webdriver",
    "cypress",
    "lighthouse",
    "page speed",
    "pagespeed",
    "ptst/",
    "prerender",
    "validator",
    "monitoring",
    "pingdom",
    "uptime",
    "statuscake",
    "site24x7",
    "newrelicpinger",
    "datadogsynthetics",
    "gtmetrix",
    "feedfetcher",
    "preview",
    // crawlers without a general word
    "mediapartners-google",
    "google-inspectiontool",
    "google web preview",
    "google favicon",
    "apis-google",
    "bingpreview",
    "facebookexternalhit",
    "facebookcatalog",
    "meta-externalagent",
    "whatsapp/",
    "pinterest/0",
    "embedly",
    "quora link",
    "ia_archiver",
    "yandeximages",
    "yandexmetrika",
    "chatgpt-user",
    "claude-web",
    "perplexity-user",
    "cohere-ai",
    "nuzzel",
    "bitlypro",
    "w3c_",
    "deepscan",
    "netcraft",
    "censysinspect",
    "expanse, a palo alto",
    "barkrowler",
    "screaming frog",
];

/// User agents of people that hold one of the words above: phones of the maker Cubot.
pub(super) const NEVER: &[&str] = &["cubot"];
