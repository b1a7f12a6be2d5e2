//! The statistics socket: whoever connects gets the engine's dump. Only where the program or its environment asks for it.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::instance::Engine;
use super::log::Level;

/// Names the directory, and asks for a socket of every engine.
const VARIABLE: &str = "RCG_STATS_DIR";
/// Where sockets are without it: of root's programs, and below the user's own directory of others.
const ROOTS_DIRECTORY: &str = "/run/rcg";
/// Engines of one process that can have a socket.
const MOST: usize = 64;
/// How long a reader may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A socket with its thread.
pub(super) struct Monitor {
    path: PathBuf,
    listener: Arc<UnixListener>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Monitor {
    /// A socket for the engine, if one is wanted and the directory is there. Without one all goes on as ever.
    pub(super) fn start(engine: &Arc<Engine>, wanted: bool) -> Option<Self> {
        let directory = directory(wanted)?;
        let bound = bind_any(&directory).inspect_err(|error| {
            // Who has no use for it need not make the directory.
            let level = if error.kind() == io::ErrorKind::NotFound { Level::Info } else { Level::Warn };
            engine.log(level, format_args!("no statistics socket in {}: {error}", directory.display()));
        });
        let (path, listener) = bound.ok()?;
        let listener = Arc::new(listener);
        let (theirs, weak) = (Arc::clone(&listener), Arc::downgrade(engine));
        let serve = move || serve(&theirs, &weak);
        let thread = std::thread::Builder::new().name("rcg-stats".into()).spawn(serve);
        let thread = thread.inspect_err(|_| drop(fs::remove_file(&path))).ok()?;
        Some(Self { path, listener, thread: Mutex::new(Some(thread)) })
    }

    /// Removes the socket and waits for the thread.
    pub(super) fn stop(&self) {
        let _ = fs::remove_file(&self.path);
        // Accepting ends.
        let _ = SockRef::from(&*self.listener).shutdown(std::net::Shutdown::Both);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// Where the socket is to be.
fn directory(wanted: bool) -> Option<PathBuf> {
    // SAFETY: no pointers. Not for programs that run with more rights than their caller has, as secure_getenv(3).
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    if let Some(named) = std::env::var_os(VARIABLE).filter(|named| !secure && !named.is_empty()) {
        return Some(named.into());
    }
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    match (wanted, root) {
        (false, _) => None,
        (true, true) => Some(ROOTS_DIRECTORY.into()),
        (true, false) => std::env::var_os("XDG_RUNTIME_DIR").map(|home| Path::new(&home).join("rcg")),
    }
}

/// A socket of this process's, for its user only, by the first number that no other engine has.
fn bind_any(directory: &Path) -> io::Result<(PathBuf, UnixListener)> {
    for number in 0..MOST {
        let path = directory.join(format!("{}-{number}.sock", std::process::id()));
        if UnixStream::connect(&path).is_ok() {
            continue;
        }
        // Left by a process that had our number.
        let _ = fs::remove_file(&path);
        match listen(&path) {
            Ok(listener) => return Ok((path, listener)),
            // Another engine of ours was quicker.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before it is bound: the file is never there with another mode.
    // SAFETY: no pointers, a descriptor of ours.
    if unsafe { libc::fchmod(socket.as_raw_fd(), 0o600) } != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(4)?;
    Ok(socket.into())
}

/// Writes all of it, or as much as a reader takes in time.
fn write(stream: &mut UnixStream, text: &[u8]) -> io::Result<()> {
    let (end, mut rest) = (Instant::now() + PATIENCE, text);
    while !rest.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        let count = stream.write(rest)?;
        rest = rest.get(count..).unwrap_or_default();
    }
    Ok(())
}

fn serve(listener: &UnixListener, engine: &Weak<Engine>) {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let Some(engine) = engine.upgrade() else { return };
                // A reader that fails, fails by itself.
                let _ = write(&mut stream, engine.dump().as_bytes());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Short of descriptors: they come back.
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) => std::thread::sleep(PATIENCE),
            Err(_) => return,
        }
    }
}
