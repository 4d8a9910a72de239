//! The HTTP server: accepts, bounds and watches connections, and drains them in order when told to stop.
//!
//! Stopping: `/readyz` says no first, for as long as load balancers need to see it; then the listener closes, connections finish the
//! request they are in, and what is left at the deadline is cut.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Extensions, Method, Request, Response, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::Service;

use super::metrics::CONNECTIONS_ENDED;
use super::refusals::Refusals;
use super::reply::Code;
use super::request_id::{RequestIds, X_REQUEST_ID};
use super::watch::{Phase, Watchdog, Watched, WatchedStream};
use super::{App, Error, Gateway, Shared, cors, reply, routes};

/// After a failed accept (no file descriptors left, mostly), how long until the next.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The other end of a request's connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub ip: IpAddr,
    pub ip_text: Arc<str>,
    pub watched: Arc<Watched>,
}

impl Peer {
    pub(super) fn of(head: &Parts) -> &Peer {
        head.extensions.get().expect("the server puts it into every request")
    }
}

/// Where a request comes from, for routes of the app's own.
pub fn peer_ip(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<Peer>().map(|peer| peer.ip)
}

/// Serves until `shutdown` resolves and the drain is over.
pub async fn serve(listener: TcpListener, app: App, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let gateway: Shared = Arc::new(Gateway::new(app)?);
    let watchdog = Arc::new(Watchdog::new(&gateway.app.options));
    let (close, closing) = watch::channel(false);
    let server = Server {
        router: routes::router(gateway.clone()),
        http: http(&gateway),
        request_ids: Arc::new(RequestIds::new()),
        watchdog: watchdog.clone(),
        closing,
        gateway,
    };
    let ticking = tokio::spawn(async move { watchdog.run().await });
    let mut connections = JoinSet::new();
    server.accept_until(&listener, &mut connections, shutdown).await;
    server.gateway.draining.store(true, Ordering::Relaxed);
    tracing::info!(connections = connections.len(), "draining");
    let options = &server.gateway.app.options;
    let notice = tokio::time::sleep(Duration::from_millis(options.drain_notice_ms));
    server.accept_until(&listener, &mut connections, notice).await;
    drop(listener);
    close.send_replace(true);
    server.gateway.closing.send_replace(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_millis(options.drain_timeout_ms), finished).await.is_err() {
        tracing::warn!(connections = connections.len(), "drain deadline passed; open requests are cut and will be sent again");
    }
    connections.shutdown().await;
    ticking.abort();
    Ok(())
}

fn http(gateway: &Gateway) -> http1::Builder {
    let options = &gateway.app.options;
    let mut http = http1::Builder::new();
    // The watchdog's phases replace hyper's timer, which would cost two timer operations a request.
    http.header_read_timeout(None).max_header_size(options.head_bytes_max).keep_alive(true);
    // Setting it at all costs an allocation a request; 100 is hyper's own bound.
    if options.headers_max != 100 {
        http.max_headers(options.headers_max);
    }
    http
}

struct Server {
    gateway: Shared,
    router: Router,
    http: http1::Builder,
    request_ids: Arc<RequestIds>,
    watchdog: Arc<Watchdog>,
    closing: watch::Receiver<bool>,
}

impl Server {
    async fn accept_until(&self, listener: &TcpListener, connections: &mut JoinSet<()>, until: impl Future<Output = ()>) {
        let mut until = pin!(until);
        loop {
            tokio::select! {
                biased;
                () = &mut until => return,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => self.begin(stream, from, connections),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_BACKOFF).await;
                    }
                },
            }
            self.gateway.metrics.connections.set(connections.len() as f64);
        }
    }

    fn begin(&self, stream: TcpStream, from: SocketAddr, connections: &mut JoinSet<()>) {
        if connections.len() >= self.gateway.app.options.connections_max {
            // A courtesy: if the socket's buffer does not take it the client sees a reset, and comes again too.
            let _ = stream.try_write(reply::too_many_connections());
            metrics::counter!(CONNECTIONS_ENDED, "waiting_for" => "a place").increment(1);
            return;
        }
        let _ = stream.set_nodelay(true);
        let watched = self.watchdog.watch();
        let ip = from.ip().to_canonical();
        let peer = Peer { ip, ip_text: ip.to_string().into(), watched: watched.clone() };
        let (router, request_ids, refusals) = (self.router.clone(), self.request_ids.clone(), self.gateway.refusals.clone());
        let service = service_fn(move |request| handle(router.clone(), request_ids.clone(), refusals.clone(), peer.clone(), request));
        let connection =
            self.http.serve_connection(TokioIo::new(WatchedStream { stream, watched: watched.clone() }), service).with_upgrades();
        let mut closing = self.closing.clone();
        connections.spawn(async move {
            let mut connection = pin!(connection);
            let mut is_closing = false;
            loop {
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = watched.expired() => {
                        metrics::counter!(CONNECTIONS_ENDED, "waiting_for" => watched.phase().as_str()).increment(1);
                        return;
                    }
                    _ = closing.wait_for(|closing| *closing), if !is_closing => {
                        is_closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        });
    }
}

async fn handle(
    mut router: Router,
    request_ids: Arc<RequestIds>,
    refusals: Arc<Refusals>,
    peer: Peer,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let started = Instant::now();
    let watched = peer.watched.clone();
    watched.enter(if request.body().is_end_stream() { Phase::Serving } else { Phase::Body });
    if let Some(uri) = routes::normalized(request.uri()) {
        *request.uri_mut() = uri;
    }
    let is_cross_origin = routes::is_cross_origin(request.uri().path());
    let origin = if is_cross_origin { request.headers().get(header::ORIGIN).cloned() } else { None };
    let id = request_ids.of(request.headers());
    let logged = tracing::enabled!(tracing::Level::INFO).then(|| (request.method().clone(), request.uri().clone()));
    let mut response = if is_cross_origin && request.method() == Method::OPTIONS {
        cors::preflight(request.headers())
    } else {
        request.extensions_mut().insert(peer);
        let Ok(response) = router.call(request).await;
        response
    };
    if let Some(origin) = origin {
        cors::allow(origin, &mut response);
    }
    if let Some((method, uri)) = logged {
        let (request_id, path, took_us) = (id.to_str().unwrap_or(""), without_token(uri.path()), started.elapsed().as_micros() as u64);
        let status = response.status().as_u16();
        // A client that reports an error has its id from the answer; what went well is of interest only to who looks closely.
        if status < 400 {
            tracing::debug!(request_id, %method, path, status, took_us, "answered");
        } else {
            let code = response.extensions().get::<Code>().map_or("", |code| code.0);
            match refusals.next(status, code) {
                Some(others) => tracing::info!(request_id, %method, path, status, code, others, took_us, "refused"),
                None => tracing::debug!(request_id, %method, path, status, code, took_us, "refused"),
            }
        }
    }
    response.headers_mut().insert(X_REQUEST_ID, id);
    watched.enter(Phase::Writing);
    Ok(response)
}
/// Of a link's path only what it is for: the token in it may approve or unsubscribe, and a log file is read by many.
fn without_token(path: &str) -> &str {
    match path.strip_prefix("/m/").and_then(|rest| rest.find('/')) {
        Some(end) => &path[.."/m/".len() + end],
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::without_token;

    #[test]
    fn a_token_is_in_no_log() {
        for (path, logged) in
            [("/m/approve/own.BWssA", "/m/approve"), ("/m/unsubscribe/x/y", "/m/unsubscribe"), ("/v1/track", "/v1/track"), ("/m/", "/m/")]
        {
            assert_eq!(without_token(path), logged);
        }
    }
}
