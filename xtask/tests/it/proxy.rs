//! A proxy before a server, which breaks the network when it is told to.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Default)]
pub(crate) struct Proxy {
    port: u16,
    server: u16,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    frozen: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn before(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let proxy = Proxy {
            port: listener.local_addr().expect("an address").port(),
            server: port,
            ..Proxy::default()
        };
        let passing = proxy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", port)))
                else {
                    continue;
                };
                let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle");
                let mut open = passing.streams.lock().expect("no panic");
                open.extend([clone(&client), clone(&server)]);
                drop(open);
                passing.pump(clone(&client), clone(&server));
                passing.pump(server, client);
            }
        });
        proxy
    }

    /// An address on the server, through the proxy.
    pub(crate) fn url(&self, url: &str) -> String {
        url.replace(&format!(":{}/", self.server), &format!(":{}/", self.port))
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        for stream in self.streams.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// From now on nothing comes through, and nobody is told.
    pub(crate) fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
    }

    /// Passes on what comes, until either side ends.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let frozen = Arc::clone(&self.frozen);
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                while frozen.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(100));
                }
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
}
