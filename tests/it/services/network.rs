//! A network between the services and who talks to them that can be slow, lossy or cut, while both sides' kernels go on as they would.
//!
//! Clients live in a network namespace of their own, joined to the services' by two TUN devices and a relay between them, which holds back
//! or drops packets. So nobody is told anything that a real network would not tell: connections stay open, what was sent is sent again,
//! and only deadlines notice. A relay of ours and not `tc netem`, which not every kernel has. Namespace and devices have no name outside of
//! this process and are gone with it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::own;

/// Packets held back at most, each way; as a router's memory, what comes on top is lost.
const HELD_MAX: usize = 8192;
const PACKET_BYTES_MAX: usize = 65_536;
/// How soon a relay notices that nobody needs it any more.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Two ends with packets going back and forth. Undisturbed until told otherwise; ends with the value.
pub struct Network {
    weather: Arc<Weather>,
    /// The clients' end.
    inside: File,
    address: Ipv4Addr,
}

#[derive(Default)]
struct Weather {
    is_cut: AtomicBool,
    is_over: AtomicBool,
    delay_us: AtomicU64,
    lost_percent: AtomicU32,
}

impl Network {
    /// `None` if services are to be skipped.
    #[track_caller]
    pub fn open() -> Option<Self> {
        own("a network namespace", || {
            Self::try_open().map_err(|error| format!("a network namespace needs root, `ip` (iproute2) and /dev/net/tun: {error}"))
        })
    }

    fn try_open() -> Result<Self> {
        let [services, clients] = fresh_pair();
        let (outer, name) = open_tun()?;
        configure(&name, services)?;
        // The thread that leaves for a namespace of its own does not come back.
        let leave = move || -> Result<(File, File)> {
            // SAFETY: unshare(2) touches no memory; the thread ends before it does anything else in its old namespace.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(Error::last_os_error());
            }
            let (inner, name) = open_tun()?;
            configure(&name, clients)?;
            run_ip(&["link", "set", "lo", "up"])?;
            Ok((inner, File::open("/proc/thread-self/ns/net")?))
        };
        let (inner, inside) = std::thread::spawn(leave).join().expect("it does not panic")?;
        let weather = Arc::new(Weather::default());
        for (from, to) in [(outer.try_clone()?, inner.try_clone()?), (inner, outer)] {
            let weather = Arc::clone(&weather);
            std::thread::Builder::new().name("relay".into()).spawn(move || relay(&weather, from, to))?;
        }
        Ok(Self { weather, inside, address: services })
    }

    /// Where services listen so that clients inside reach them: give it to what starts them. Clients outside reach it undisturbed.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A program that will be a client inside.
    pub fn enter<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let inside = self.inside.try_clone().expect("a second handle");
        // SAFETY: the closure runs between fork and exec and makes one system call, which touches no memory.
        unsafe { command.pre_exec(move || join(inside.as_raw_fd())) }
    }

    /// Runs clients inside: this closure, and whatever threads and runtimes it starts.
    pub fn within<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let inside = self.inside.as_raw_fd();
        let entered = move || {
            join(inside).expect("the namespace is ours");
            run()
        };
        std::thread::scope(|scope| scope.spawn(entered).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Every packet is lost, both ways, until [`Network::heal`].
    pub fn cut(&self) {
        self.weather.is_cut.store(true, Ordering::SeqCst);
    }

    /// Every packet takes this long, each way.
    pub fn delay(&self, by: Duration) {
        self.weather.delay_us.store(by.as_micros() as u64, Ordering::SeqCst);
    }

    /// So many of a hundred packets are lost, both ways.
    pub fn lose(&self, percent: u32) {
        self.weather.lost_percent.store(percent, Ordering::SeqCst);
    }

    /// Undisturbed again.
    pub fn heal(&self) {
        self.weather.is_cut.store(false, Ordering::SeqCst);
        self.delay(Duration::ZERO);
        self.lose(0);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.weather.is_over.store(true, Ordering::SeqCst);
    }
}

/// Packets one way, until it is over.
fn relay(weather: &Weather, mut from: File, mut to: File) {
    let mut held: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let mut count = 0u64;
    while !weather.is_over.load(Ordering::SeqCst) {
        let now = Instant::now();
        while held.front().is_some_and(|(due, _)| *due <= now) {
            let (_, packet) = held.pop_front().expect("just seen");
            // A full queue loses packets, as elsewhere.
            let _ = to.write(&packet);
        }
        let wait = held.front().map_or(LOOK_EVERY, |(due, _)| due.saturating_duration_since(now).min(LOOK_EVERY));
        if !is_readable(from.as_raw_fd(), wait) {
            continue;
        }
        let size = match from.read(&mut packet) {
            Ok(size) => size,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            Err(_) => return,
        };
        count += 1;
        // Which ones is the same in every run: a hash of their number.
        let chance = (count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 100;
        let is_lost = chance < u64::from(weather.lost_percent.load(Ordering::SeqCst)) || held.len() >= HELD_MAX;
        if weather.is_cut.load(Ordering::SeqCst) || is_lost {
            continue;
        }
        let delay = Duration::from_micros(weather.delay_us.load(Ordering::SeqCst));
        // Nobody overtakes when the delay shrinks.
        let due = held.back().map_or(now, |(last, _)| *last).max(Instant::now() + delay);
        held.push_back((due, packet[..size].to_vec()));
    }
}

fn is_readable(fd: RawFd, within: Duration) -> bool {
    let mut asked = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let within = libc::timespec { tv_sec: within.as_secs() as libc::time_t, tv_nsec: libc::c_long::from(within.subsec_nanos() as i32) };
    // SAFETY: ppoll(2) reads and writes the one entry and reads the time, both of which live through the call.
    unsafe { libc::ppoll(&mut asked, 1, &within, std::ptr::null()) == 1 }
}

fn join(namespace: RawFd) -> Result<()> {
    // SAFETY: setns(2) touches no memory.
    match unsafe { libc::setns(namespace, libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// A TUN device of this thread's namespace, and its name. Gone when the file is closed.
fn open_tun() -> Result<(File, String)> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: all zeroes is a valid ifreq.
    let mut asked: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in asked.ifr_name.iter_mut().zip(b"flywheel%d") {
        *to = *from as libc::c_char;
    }
    asked.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut asked) } != 0 {
        return Err(Error::last_os_error());
    }
    let name = asked.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8 as char).collect();
    Ok((file, name))
}

/// Address and state of a device of this thread's namespace.
fn configure(device: &str, address: Ipv4Addr) -> Result<()> {
    run_ip(&["addr", "add", &format!("{address}/30"), "dev", device])?;
    run_ip(&["link", "set", device, "up"])
}

fn run_ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::other(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))),
    }
}

/// Both ends of a network of four addresses that nobody on this machine uses.
fn fresh_pair() -> [Ipv4Addr; 2] {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(8).wrapping_add(NUMBER.fetch_add(1, Ordering::Relaxed)) % (1 << 14);
        let base = u32::from(Ipv4Addr::new(10, 213, 0, 0)) + number * 4;
        let pair = [1, 2].map(|host| Ipv4Addr::from(base + host));
        if TcpListener::bind((pair[0], 0)).is_err() {
            return pair;
        }
    }
}
